"""Embed the cells of a dataset in latent spaces.

input   results/{dataset}/data/cells.h5ad, splits/seed{seed}.tsv.gz, genes/seed{seed}.tsv
output  results/{dataset}/latent/{latent}/seed{seed}.h5ad (cells x n_latent), its cost, for a count
        model its weights and curve, and for a linear decoder its loadings
while a count model trains also seed{seed}.checkpoint, which is no output: a failed job keeps it
"""


rule fit_pca:
    """Fit principal components of log-normalised counts on the training cells; project all."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
    output:
        latent="results/{dataset}/latent/pca/seed{seed}.h5ad",
        cost="results/{dataset}/latent/pca/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/fit_pca/seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(900, 0.3, chosen=True),
        runtime=minutes(10, 0.01),
    params:
        code=library("fit_pca"),
        packages=pinned("cells"),
        pca=lookup(dpath="pca", within=config),
        memory_gb=lookup(dpath="training/memory_gb", within=config),
    script:
        "../../scripts/fit_pca.py"


rule correct_harmony:
    """Move the cells of the batches towards shared clusters in PCA space."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        latent="results/{dataset}/latent/pca/seed{seed}.h5ad",
    output:
        latent="results/{dataset}/latent/harmony/seed{seed}.h5ad",
        cost="results/{dataset}/latent/harmony/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/correct_harmony/seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(700, 2),
        runtime=minutes(15, 0.05),
    params:
        code=library("correct_harmony"),
        packages=pinned("cells"),
        harmony=lookup(dpath="harmony", within=config),
    script:
        "../../scripts/correct_harmony.py"


rule train_dca:
    """Train the deep count autoencoder and keep the bottleneck of each cell."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
    output:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/{latent}/seed{seed}.model"),
        curve="results/{dataset}/latent/{latent}/seed{seed}.curve.tsv",
        cost="results/{dataset}/latent/{latent}/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_dca/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=named("dca"),
    conda:
        torch_env
    threads: config["training"]["threads"]
    resources:
        mem_mb=memory(1200, 0.5, chosen=True),
        runtime=minutes(60, 0.05),
    params:
        code=library("train_dca"),
        packages=pinned("torch"),
        model=lambda wildcards: model(wildcards.latent),
        training=lambda wildcards: plan(wildcards.latent),
        threads=lookup(dpath="training/threads", within=config),
        checkpoint=place("results/{dataset}/latent/{latent}/seed{seed}.checkpoint"),
    script:
        "../../scripts/train_dca.py"


rule train_scvi:
    """Train the variational autoencoder and keep the mean latent state of each cell."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
    output:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/{latent}/seed{seed}.model"),
        curve="results/{dataset}/latent/{latent}/seed{seed}.curve.tsv",
        cost="results/{dataset}/latent/{latent}/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_scvi/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=named("scvi"),
    conda:
        torch_env
    threads: config["training"]["threads"]
    resources:
        mem_mb=memory(1200, 0.5, chosen=True),
        runtime=minutes(60, 0.05),
    params:
        code=library("train_scvi"),
        packages=pinned("torch"),
        model=lambda wildcards: model(wildcards.latent),
        training=lambda wildcards: plan(wildcards.latent),
        min_cells_per_label=lambda wildcards: label_floor(wildcards.latent),
        threads=lookup(dpath="training/threads", within=config),
        checkpoint=place("results/{dataset}/latent/{latent}/seed{seed}.checkpoint"),
    script:
        "../../scripts/train_scvi.py"


rule train_scanvi:
    """Go on from scVI, or from scratch, with the labels that training may see; predict the others."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
        scvi=lambda wildcards: (
            f"results/{wildcards.dataset}/latent/{below(wildcards.latent)}/seed{wildcards.seed}.model"
            if below(wildcards.latent)
            else []
        ),
    output:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/{latent}/seed{seed}.model"),
        curve="results/{dataset}/latent/{latent}/seed{seed}.curve.tsv",
        labels="results/{dataset}/labels/{latent}/seed{seed}.uncalibrated.tsv.gz",
        cost="results/{dataset}/latent/{latent}/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_scanvi/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=named("scanvi"),
    conda:
        torch_env
    threads: config["training"]["threads"]
    resources:
        mem_mb=memory(1200, 0.5, chosen=True),
        runtime=minutes(60, 0.05),
    params:
        code=library("train_scanvi"),
        packages=pinned("torch"),
        model=lambda wildcards: model(wildcards.latent),
        scvi=lambda wildcards: {} if below(wildcards.latent) else model("scvi"),
        training=lambda wildcards: plan(wildcards.latent),
        threads=lookup(dpath="training/threads", within=config),
        checkpoint=place("results/{dataset}/latent/{latent}/seed{seed}.checkpoint"),
    script:
        "../../scripts/train_scanvi.py"


rule write_loadings:
    """Write how a linear decoder moves the log expression of each gene along each dimension."""
    input:
        model="results/{dataset}/latent/{latent}/seed{seed}.model",
    output:
        loadings="results/{dataset}/latent/{latent}/seed{seed}.loadings.tsv",
    log:
        "results/{dataset}/logs/write_loadings/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=named("scvi"),
    conda:
        torch_env
    resources:
        mem_mb=memory(800),
        runtime=minutes(5),
    params:
        code=library("write_loadings"),
        packages=pinned("torch"),
    script:
        "../../scripts/write_loadings.py"


rule import_latent:
    """Put a model that scvi-tools trained to use on the cells; it learns nothing here."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        model=lambda wildcards: own(imported_file(wildcards)),
    output:
        latent="results/{dataset}/latent/{latent}/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/{latent}/seed{seed}.model"),
        genes="results/{dataset}/latent/{latent}/seed{seed}.genes.tsv",
        cost="results/{dataset}/latent/{latent}/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/import_latent/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=any_of(imports()),
    conda:
        torch_env
    resources:
        mem_mb=memory(1200, 0.5, chosen=True),
        runtime=minutes(10, 0.01),
    params:
        code=library("import_latent"),
        packages=pinned("torch"),
        contents=lambda wildcards: contents([imported_file(wildcards)]),
        folder=lambda wildcards: imported(wildcards.dataset)[wildcards.latent],
        device=lambda wildcards: plan(wildcards.latent)["device"],
        memory_gb=lookup(dpath="training/memory_gb", within=config),
    script:
        "../../scripts/import_latent.py"


rule export_model:
    """Write a trained model as scvi-tools loads it."""
    input:
        model="results/{dataset}/latent/{latent}/seed{seed}.model",
    output:
        model="results/{dataset}/latent/{latent}/seed{seed}.scvi-tools/model.pt",
    log:
        "results/{dataset}/logs/export_model/{latent}.seed{seed}.log",
    wildcard_constraints:
        latent=any_of([named("scvi"), named("scanvi")]),
    conda:
        torch_env
    resources:
        mem_mb=memory(800),
        runtime=minutes(5),
    params:
        code=library("export_model"),
        packages=pinned("torch"),
    script:
        "../../scripts/export_model.py"
