"""Score every latent and every control alike, and say which differences are real.

input   results/{dataset}/latent/{latent}/seed{seed}.h5ad; never a layout
output  results/{dataset}/benchmark/{scores/…, comparison.tsv, summary.tsv}
"""


rule score_latent:
    """Measure one latent: labels on cells whose labels were hidden, batches on all cells."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
    output:
        scores="results/{dataset}/benchmark/scores/{latent}/seed{seed}.tsv",
    log:
        "results/{dataset}/logs/score_latent/{latent}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    params:
        code=library("score_latent"),
        benchmark=lookup(dpath="benchmark", within=config),
    script:
        "../../scripts/score_latent.py"


rule score_controls:
    """Measure embeddings whose scores are known beforehand: shuffled cells, and the labels."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
        latent="results/{dataset}/latent/pca/seed{seed}.h5ad",
    output:
        scores="results/{dataset}/benchmark/controls/seed{seed}.tsv",
    log:
        "results/{dataset}/logs/score_controls/seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    params:
        code=library("score_controls"),
        benchmark=lookup(dpath="benchmark", within=config),
    script:
        "../../scripts/score_controls.py"


rule compare_latents:
    """Gather scores and costs; compare each latent with PCA, seed by seed, with intervals."""
    input:
        scores=lambda wildcards: expand(
            "results/{dataset}/benchmark/scores/{latent}/seed{seed}.tsv",
            dataset=wildcards.dataset,
            latent=latents(wildcards.dataset),
            seed=config["seeds"],
        ),
        controls=expand(
            "results/{{dataset}}/benchmark/controls/seed{seed}.tsv", seed=config["seeds"]
        ),
        costs=lambda wildcards: expand(
            "results/{dataset}/latent/{latent}/seed{seed}.cost.json",
            dataset=wildcards.dataset,
            latent=latents(wildcards.dataset),
            seed=config["seeds"],
        ),
    output:
        comparison="results/{dataset}/benchmark/comparison.tsv",
        summary="results/{dataset}/benchmark/summary.tsv",
    log:
        "results/{dataset}/logs/compare_latents.log",
    conda:
        "../../envs/cells.yaml"
    params:
        code=library("compare_latents"),
        latents=lambda wildcards: latents(wildcards.dataset),
        on_top_of=lambda wildcards: on_top_of(wildcards.dataset),
        seeds=config["seeds"],
        benchmark=lookup(dpath="benchmark", within=config),
    script:
        "../../scripts/compare_latents.py"
