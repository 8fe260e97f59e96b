"""Expression as a count model sees it, for looking and never for hypothesis tests.

input   results/{dataset}/latent/{latent}/seed{seed}.model
output  results/{dataset}/expression/{latent}/seed{seed}.h5ad (cells x genes of the model)
"""


rule denoise_counts:
    """Write the expected expression of every cell under a trained model."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes=genes_of,
        model="results/{dataset}/latent/{latent}/seed{seed}.model",
    output:
        expression="results/{dataset}/expression/{latent}/seed{seed}.h5ad",
    log:
        "results/{dataset}/logs/denoise_counts/{latent}.seed{seed}.log",
    conda:
        torch_env
    resources:
        mem_mb=memory(1200, 0.5, chosen=True),
        runtime=minutes(15, 0.05),
    params:
        code=library("denoise_counts"),
        packages=pinned("torch"),
        denoise={key: value for key, value in config["denoise"].items() if key != "latents"},
        device=lambda wildcards: plan(wildcards.latent)["device"],
        memory_gb=lookup(dpath="training/memory_gb", within=config),
    script:
        "../../scripts/denoise_counts.py"
