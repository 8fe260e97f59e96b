"""Bring counts in, check them, keep good cells, split them, choose genes.

input   files, downloads, scanpy's or simulated counts, as config["datasets"] says
output  results/{dataset}/data/cells.h5ad, splits/seed{seed}.tsv.gz, genes/seed{seed}.tsv
"""


rule download_counts:
    """Download one file and put it in place once its size, type and hash are right.

    It runs where Snakemake does: compute nodes often reach no other machine.
    """
    output:
        "resources/{dataset}/{file}",
    log:
        "results/{dataset}/logs/download_counts/{file}.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory(500),
        runtime=minutes(240),
    params:
        # No hash of the library: a change there is no reason to download gigabytes again.
        sample=lambda wildcards: downloads(wildcards.dataset)[wildcards.file],
    script:
        "../../scripts/download_counts.py"


rule simulate_counts:
    """Simulate counts with known truth."""
    output:
        counts="results/{dataset}/data/simulated.h5ad",
    log:
        "results/{dataset}/logs/simulate_counts.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory(500, 40),
        runtime=minutes(5, 0.1),
    params:
        code=library("simulate_counts"),
        packages=pinned("data"),
        simulate=lambda wildcards: config["datasets"][wildcards.dataset]["simulate"],
    script:
        "../../scripts/simulate_counts.py"


rule validate_counts:
    """Read the samples of a dataset, refuse what is not raw counts, name batch and cell_type."""
    input:
        files=sample_files,
    output:
        counts="results/{dataset}/data/counts.h5ad",
    log:
        "results/{dataset}/logs/validate_counts.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory(900, 0.2),
        runtime=minutes(10, 0.01),
    params:
        code=library("validate_counts"),
        packages=pinned("data"),
        contents=lambda wildcards: contents(user_files(wildcards.dataset)),
        dataset=lambda wildcards: {
            key: value
            for key, value in config["datasets"][wildcards.dataset].items()
            if key != "models"
        },
        samples=lambda wildcards: {
            name: found_path(wildcards.dataset, name, sample["source"]) or sample["source"]
            for name, sample in samples(wildcards.dataset).items()
        },
        limits=lookup(dpath="input", within=config),
    script:
        "../../scripts/validate_counts.py"


rule filter_cells:
    """Drop empty droplets, dying cells and doublets, batch by batch, and count what went why.

    Doublets are the same with any number of threads, so it may depend on --cores.
    """
    input:
        counts="results/{dataset}/data/counts.h5ad",
    output:
        cells="results/{dataset}/data/cells.h5ad",
        metrics="results/{dataset}/data/qc.tsv.gz",
        thresholds="results/{dataset}/data/thresholds.tsv",
        removed="results/{dataset}/data/removed.tsv",
    log:
        "results/{dataset}/logs/filter_cells.log",
    conda:
        "../../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=memory(1800, 1.5),
        runtime=minutes(15, 0.04),
    params:
        code=library("filter_cells"),
        packages=pinned("data"),
        filters=lookup(dpath="qc", within=config),
    script:
        "../../scripts/filter_cells.py"


rule split_cells:
    """Decide which cells train, validate and test, and whose labels are seen, before all else."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
    output:
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
    log:
        "results/{dataset}/logs/split_cells/seed{seed}.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory(500, 0.4),
        runtime=minutes(5, 0.002),
    params:
        code=library("split_cells"),
        packages=pinned("data"),
        shares=lookup(dpath="splits", within=config),
        hidden_batches=lambda wildcards: config["datasets"][wildcards.dataset]["hidden_batches"],
    script:
        "../../scripts/split_cells.py"


rule select_genes:
    """Choose highly variable genes on the training cells, batch by batch."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits="results/{dataset}/data/splits/seed{seed}.tsv.gz",
    output:
        genes="results/{dataset}/data/genes/seed{seed}.tsv",
    log:
        "results/{dataset}/logs/select_genes/seed{seed}.log",
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=memory(1200, 0.2),
        runtime=minutes(10, 0.005),
    params:
        code=library("select_genes"),
        packages=pinned("data"),
        selection=lookup(dpath="genes", within=config),
    script:
        "../../scripts/select_genes.py"
