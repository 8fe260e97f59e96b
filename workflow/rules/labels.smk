"""Predict the labels that are unknown or hidden, calibrate, and score every classifier.

input   results/{dataset}/latent/pca/seed{seed}.h5ad, splits; scANVI's labels come with training
output  results/{dataset}/labels/{classifier}/seed{seed}.tsv.gz, results/{dataset}/labels/scores.tsv
"""


rule transfer_labels:
    """Predict labels with probabilities from PCA, by logistic regression or nearest neighbours."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        latent="results/{dataset}/latent/pca/seed{seed}.h5ad",
    output:
        labels="results/{dataset}/labels/{classifier}/seed{seed}.uncalibrated.tsv.gz",
    log:
        "results/{dataset}/logs/transfer_labels/{classifier}.seed{seed}.log",
    wildcard_constraints:
        classifier="logistic|knn",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(600, 1.2),
        runtime=minutes(10, 0.03),
    params:
        code=library("transfer_labels"),
        packages=pinned("cells"),
        transfer=lookup(dpath="transfer", within=config),
    script:
        "../../scripts/transfer_labels.py"


rule calibrate_labels:
    """Make a classifier's probabilities honest on cells that trained nothing and judge nothing."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
        labels="results/{dataset}/labels/{classifier}/seed{seed}.uncalibrated.tsv.gz",
    output:
        labels="results/{dataset}/labels/{classifier}/seed{seed}.tsv.gz",
    log:
        "results/{dataset}/logs/calibrate_labels/{classifier}.seed{seed}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.8),
        runtime=minutes(5, 0.002),
    params:
        code=library("calibrate_labels"),
        packages=pinned("cells"),
    script:
        "../../scripts/calibrate_labels.py"


rule score_labels:
    """Score every classifier on the test labels, beside the majority vote."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits=expand("results/{{dataset}}/data/splits/seed{seed}.tsv.gz", seed=config["seeds"]),
        labels=lambda wildcards: expand(
            "results/{dataset}/labels/{classifier}/seed{seed}.tsv.gz",
            dataset=wildcards.dataset,
            classifier=classifiers(wildcards.dataset),
            seed=config["seeds"],
        ),
    output:
        scores="results/{dataset}/labels/scores.tsv",
    log:
        "results/{dataset}/logs/score_labels.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.8),
        runtime=minutes(5, 0.002),
    params:
        code=library("score_labels"),
        packages=pinned("cells"),
        seeds=config["seeds"],
        classifiers=lambda wildcards: classifiers(wildcards.dataset),
    script:
        "../../scripts/score_labels.py"
