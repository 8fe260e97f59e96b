"""sclatent: from raw single-cell counts to integrated, labelled and compared latents.

    snakemake --cores 2                          the embedded default
    snakemake --cores 8 --configfile my.yaml     your data; my.yaml holds only what differs
    snakemake -n                                 what would run

config/README.md describes every key; the stages below stand in the order of the data flow.
"""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


configfile: Path(workflow.basedir, "config", "config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/latent.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/expression.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


rule all:
    """Every dataset exported, what was asked for beside it, and one report over all of them."""
    default_target: True
    input:
        expand("results/{dataset}/{dataset}.h5ad", dataset=config["datasets"]),
        each_seed("results/{dataset}/expression/{latent}/seed{seed}.h5ad", denoised),
        each_seed("results/{dataset}/latent/{latent}/seed{seed}.loadings.tsv", linear),
        each_seed("results/{dataset}/latent/{latent}/seed{seed}.scvi-tools/model.pt", exported),
        "results/report.html",
    localrule: True
