"""Embed the cells of a dataset in latent spaces.

input   results/{dataset}/data/cells.h5ad, splits/seed{seed}.tsv.gz, genes/seed{seed}.tsv
output  results/{dataset}/latent/{latent}/seed{seed}.h5ad (cells x n_latent), and its cost
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
    params:
        code=library("fit_pca"),
        pca=lookup(dpath="pca", within=config),
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
    params:
        code=library("correct_harmony"),
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
        latent="results/{dataset}/latent/dca/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/dca/seed{seed}.model"),
        curve="results/{dataset}/latent/dca/seed{seed}.curve.tsv",
        cost="results/{dataset}/latent/dca/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_dca/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: config["training"]["threads"]
    params:
        code=library("train_dca"),
        model=lookup(dpath="dca", within=config),
        training=lookup(dpath="training", within=config),
        threads=lookup(dpath="training/threads", within=config),
    script:
        "../../scripts/train_dca.py"


rule train_scvi:
    """Train the variational autoencoder and keep the mean latent state of each cell."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
    output:
        latent="results/{dataset}/latent/scvi/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/scvi/seed{seed}.model"),
        curve="results/{dataset}/latent/scvi/seed{seed}.curve.tsv",
        cost="results/{dataset}/latent/scvi/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_scvi/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: config["training"]["threads"]
    params:
        code=library("train_scvi"),
        model=lookup(dpath="scvi", within=config),
        training=lookup(dpath="training", within=config),
        threads=lookup(dpath="training/threads", within=config),
    script:
        "../../scripts/train_scvi.py"


rule train_scanvi:
    """Go on from scVI with the labels that training may see; predict the others."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
        scvi="results/{dataset}/latent/scvi/seed{seed}.model",
    output:
        latent="results/{dataset}/latent/scanvi/seed{seed}.h5ad",
        model=directory("results/{dataset}/latent/scanvi/seed{seed}.model"),
        curve="results/{dataset}/latent/scanvi/seed{seed}.curve.tsv",
        labels="results/{dataset}/labels/scanvi/seed{seed}.uncalibrated.tsv.gz",
        cost="results/{dataset}/latent/scanvi/seed{seed}.cost.json",
    log:
        "results/{dataset}/logs/train_scanvi/seed{seed}.log",
    conda:
        "../../envs/torch.yaml"
    threads: config["training"]["threads"]
    params:
        code=library("train_scanvi"),
        model=lookup(dpath="scanvi", within=config),
        training=lookup(dpath="training", within=config),
        threads=lookup(dpath="training/threads", within=config),
    script:
        "../../scripts/train_scanvi.py"
