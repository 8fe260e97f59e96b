"""Figures, the exported dataset and the report.

input   everything above
output  results/{dataset}/figures/*.png, results/{dataset}/{dataset}.h5ad, results/report.html,
        results/ro-crate-metadata.json
"""

SEED = config["seeds"][0]


rule plot_qc:
    """Draw the quality metrics before and after filtering."""
    input:
        metrics="results/{dataset}/data/qc.tsv.gz",
        thresholds="results/{dataset}/data/thresholds.tsv",
    output:
        report(
            "results/{dataset}/figures/qc.png",
            caption="../report/qc.rst",
            category="{dataset}",
            labels={"figure": "quality control"},
        ),
    log:
        "results/{dataset}/logs/plot_qc.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.2),
        runtime=minutes(5, 0.002),
    params:
        code=library("plot_qc"),
        packages=pinned("cells"),
    script:
        "../../scripts/plot_qc.py"


rule plot_training:
    """Draw the training and validation loss of the count models, all seeds."""
    input:
        curves=lambda wildcards: expand(
            "results/{dataset}/latent/{latent}/seed{seed}.curve.tsv",
            dataset=wildcards.dataset,
            latent=trained(wildcards.dataset),
            seed=config["seeds"],
        ),
    output:
        report(
            "results/{dataset}/figures/training.png",
            caption="../report/training.rst",
            category="{dataset}",
            labels={"figure": "training"},
        ),
    log:
        "results/{dataset}/logs/plot_training.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500),
        runtime=minutes(5),
    params:
        code=library("plot_training"),
        packages=pinned("cells"),
        latents=lambda wildcards: trained(wildcards.dataset),
        seeds=config["seeds"],
    script:
        "../../scripts/plot_training.py"


rule plot_layout:
    """Draw the layouts of one latent from several layout seeds side by side."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        layout=f"results/{{dataset}}/cells/{{latent}}/seed{SEED}/{{method}}.h5ad",
    output:
        report(
            "results/{dataset}/figures/{method}_{latent}.png",
            caption="../report/layout.rst",
            category="{dataset}",
            labels={"figure": "{method} of {latent}"},
        ),
    log:
        "results/{dataset}/logs/plot_layout/{method}.{latent}.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.5),
        runtime=minutes(5, 0.002),
    params:
        code=library("plot_layout"),
        packages=pinned("cells"),
        max_points=lookup(dpath="report/max_points", within=config),
    script:
        "../../scripts/plot_layout.py"


rule plot_latents:
    """Draw every latent's UMAP by cell type, batch and cluster, one column per latent."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        layouts=lambda wildcards: expand(
            f"results/{wildcards.dataset}/cells/{{latent}}/seed{SEED}/{{method}}.h5ad",
            latent=latents(wildcards.dataset),
            method=config["layout"]["methods"][0],
        ),
        clusters=lambda wildcards: expand(
            f"results/{wildcards.dataset}/cells/{{latent}}/seed{SEED}/clusters.tsv.gz",
            latent=latents(wildcards.dataset),
        ),
    output:
        report(
            "results/{dataset}/figures/latents.png",
            caption="../report/latents.rst",
            category="{dataset}",
            labels={"figure": "all latents"},
        ),
    log:
        "results/{dataset}/logs/plot_latents.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.8),
        runtime=minutes(5, 0.002),
    params:
        code=library("plot_latents"),
        packages=pinned("cells"),
        latents=lambda wildcards: latents(wildcards.dataset),
        method=config["layout"]["methods"][0],
        main_resolution=lookup(dpath="clusters/main_resolution", within=config),
        max_points=lookup(dpath="report/max_points", within=config),
    script:
        "../../scripts/plot_latents.py"


rule plot_comparison:
    """Draw every metric of every latent with seeds, controls and intervals."""
    input:
        comparison="results/{dataset}/benchmark/comparison.tsv",
        summary="results/{dataset}/benchmark/summary.tsv",
    output:
        report(
            "results/{dataset}/figures/comparison.png",
            caption="../report/comparison.rst",
            category="{dataset}",
            labels={"figure": "comparison"},
        ),
    log:
        "results/{dataset}/logs/plot_comparison.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500),
        runtime=minutes(5),
    params:
        code=library("plot_comparison"),
        packages=pinned("cells"),
    script:
        "../../scripts/plot_comparison.py"


rule plot_labels:
    """Draw accuracy, reliability and confusion of the label classifiers on test labels."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits=expand("results/{{dataset}}/data/splits/seed{seed}.tsv.gz", seed=config["seeds"]),
        labels=lambda wildcards: expand(
            "results/{dataset}/labels/{classifier}/seed{seed}.tsv.gz",
            dataset=wildcards.dataset,
            classifier=classifiers(wildcards.dataset),
            seed=config["seeds"],
        ),
        scores="results/{dataset}/labels/scores.tsv",
    output:
        report(
            "results/{dataset}/figures/labels.png",
            caption="../report/labels.rst",
            category="{dataset}",
            labels={"figure": "label transfer"},
        ),
    log:
        "results/{dataset}/logs/plot_labels.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(500, 0.8),
        runtime=minutes(5, 0.002),
    params:
        code=library("plot_labels"),
        packages=pinned("cells"),
        seeds=config["seeds"],
        classifiers=lambda wildcards: classifiers(wildcards.dataset),
    script:
        "../../scripts/plot_labels.py"


rule export_dataset:
    """Gather counts, latents, labels, clusters and layouts of the first seed in one h5ad."""
    input:
        cells="results/{dataset}/data/cells.h5ad",
        splits=f"results/{{dataset}}/data/splits/seed{SEED}.tsv.gz",
        genes=f"results/{{dataset}}/data/genes/seed{SEED}.tsv",
        latents=lambda wildcards: expand(
            f"results/{wildcards.dataset}/latent/{{latent}}/seed{SEED}.h5ad",
            latent=latents(wildcards.dataset),
        ),
        labels=lambda wildcards: expand(
            f"results/{wildcards.dataset}/labels/{{classifier}}/seed{SEED}.tsv.gz",
            classifier=classifiers(wildcards.dataset),
        ),
        clusters=lambda wildcards: expand(
            f"results/{wildcards.dataset}/cells/{{latent}}/seed{SEED}/clusters.tsv.gz",
            latent=latents(wildcards.dataset),
        ),
        layouts=lambda wildcards: expand(
            f"results/{wildcards.dataset}/cells/{{latent}}/seed{SEED}/{{method}}.h5ad",
            latent=latents(wildcards.dataset),
            method=config["layout"]["methods"],
        ),
        loadings=lambda wildcards: expand(
            f"results/{wildcards.dataset}/latent/{{latent}}/seed{SEED}.loadings.tsv",
            latent=linear(wildcards.dataset),
        ),
    output:
        dataset="results/{dataset}/{dataset}.h5ad",
    log:
        "results/{dataset}/logs/export_dataset.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(1100, 1),
        runtime=minutes(10, 0.01),
    params:
        code=library("export_dataset"),
        packages=pinned("cells"),
        latents=lambda wildcards: latents(wildcards.dataset),
        classifiers=lambda wildcards: classifiers(wildcards.dataset),
        methods=config["layout"]["methods"],
        linear=lambda wildcards: linear(wildcards.dataset),
        main=lambda wildcards: {
            "dataset": wildcards.dataset,
            "seed": SEED,
            "latent": main_latent(wildcards.dataset),
            "resolution": config["clusters"]["main_resolution"],
        },
    script:
        "../../scripts/export_dataset.py"


rule write_report:
    """Write one self-contained page over all datasets, and the verdict in words."""
    input:
        figures=[
            path for dataset in config["datasets"] for path in report_figures(dataset).values()
        ],
        comparisons=report_files("results/{dataset}/benchmark/comparison.tsv"),
        summaries=report_files("results/{dataset}/benchmark/summary.tsv"),
        likelihoods=report_files("results/{dataset}/benchmark/likelihood.tsv", trained),
        removed=report_files("results/{dataset}/data/removed.tsv"),
        cells=report_files("results/{dataset}/data/cells.h5ad"),
        labels=report_files("results/{dataset}/labels/scores.tsv", has_labels),
    output:
        report="results/report.html",
        verdict="results/verdict.txt",
    log:
        "results/logs/write_report.log",
    conda:
        "../../envs/cells.yaml"
    resources:
        mem_mb=memory(600, 0.5),
        runtime=minutes(5, 0.002),
    params:
        code=library("write_report"),
        packages=pinned("cells"),
        page=hash_together((HERE / "workflow/report").glob("*")),
        datasets={dataset: report_parts(dataset) for dataset in config["datasets"]},
        config=config,
    script:
        "../../scripts/write_report.py"


rule describe_run:
    """Describe the finished run for machines: every job, its inputs and outputs, with hashes."""
    input:
        targets(),
    output:
        crate="results/ro-crate-metadata.json",
        config="results/config.yaml",
    log:
        "results/logs/describe_run.log",
    conda:
        "../../envs/crate.yaml"
    resources:
        mem_mb=memory(500),
        runtime=minutes(5),
    params:
        code=library("describe_run"),
        packages=pinned("crate"),
        config=config,
    script:
        "../../scripts/describe_run.py"
