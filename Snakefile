"""sclatent: from raw single-cell counts to integrated, labelled and compared latents.

    snakemake --cores 2                          the embedded default
    snakemake --cores 8 --configfile my.yaml     your data; my.yaml holds only what differs
    snakemake -n                                 what would run

config/README.md describes every key; the stages below stand in the order of the data flow.
"""

from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


configfile: Path(workflow.current_basedir.get_path_or_uri(secret_free=True), "config/config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/progress.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/reruns.smk"
include: "workflow/rules/interrupted.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/latent.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/expression.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


rule all:
    """Every dataset exported, what was asked for beside it, one report, and where it all comes from."""
    default_target: True
    input:
        targets(),
        "results/ro-crate-metadata.json",
    localrule: True
