"""Score every latent and every control alike, and say which differences are real.

input   results/{dataset}/latent/{latent}/seed{seed}.h5ad, and models; never a layout
output  results/{dataset}/benchmark/{scores/…, comparison.tsv, summary.tsv, likelihood/…,
        likelihood.tsv}
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
    resources:
        mem_mb=memory(1300, 0.2, chosen=True),
        runtime=minutes(20, 0.01),
    params:
        code=library("score_latent"),
        packages=pinned("cells"),
        benchmark=lookup(dpath="benchmark", within=config),
        memory_gb=lookup(dpath="training/memory_gb", within=config),
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
    resources:
        mem_mb=memory(1300, 0.2, chosen=True),
        runtime=minutes(20, 0.01),
    params:
        code=library("score_controls"),
        packages=pinned("cells"),
        benchmark=lookup(dpath="benchmark", within=config),
        memory_gb=lookup(dpath="training/memory_gb", within=config),
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
    resources:
        mem_mb=memory(500),
        runtime=minutes(5),
    params:
        code=library("compare_latents"),
        packages=pinned("cells"),
        latents=lambda wildcards: latents(wildcards.dataset),
        on_top_of=lambda wildcards: on_top_of(wildcards.dataset),
        seeds=config["seeds"],
        benchmark=lookup(dpath="benchmark", within=config),
    script:
        "../../scripts/compare_latents.py"


rule score_likelihood:
    """Measure how likely a trained model finds held-out cells, by importance sampling."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
        model="results/{dataset}/latent/{latent}/seed{seed}.model",
    output:
        likelihood="results/{dataset}/benchmark/likelihood/{latent}/seed{seed}.tsv",
    log:
        "results/{dataset}/logs/score_likelihood/{latent}.seed{seed}.log",
    conda:
        torch_env
    resources:
        mem_mb=memory(1100, 0.2, chosen=True),
        runtime=minutes(15, 0.01),
    params:
        code=library("score_likelihood"),
        packages=pinned("torch"),
        n_samples=lookup(dpath="benchmark/n_importance_samples", within=config),
        max_cells=lookup(dpath="benchmark/max_likelihood_cells", within=config),
        memory_gb=lookup(dpath="training/memory_gb", within=config),
        device=lambda wildcards: plan(wildcards.latent)["device"],
    script:
        "../../scripts/score_likelihood.py"


rule compare_likelihoods:
    """Compare the count models by the likelihood of held-out cells, seed by seed."""
    input:
        likelihoods=lambda wildcards: expand(
            "results/{dataset}/benchmark/likelihood/{latent}/seed{seed}.tsv",
            dataset=wildcards.dataset,
            latent=trained(wildcards.dataset),
            seed=config["seeds"],
        ),
    output:
        comparison="results/{dataset}/benchmark/likelihood.tsv",
    log:
        "results/{dataset}/logs/compare_likelihoods.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500),
        runtime=minutes(5),
    params:
        code=library("compare_likelihoods"),
        packages=pinned("cells"),
        latents=lambda wildcards: trained(wildcards.dataset),
        seeds=config["seeds"],
    script:
        "../../scripts/compare_likelihoods.py"
