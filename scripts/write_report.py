"""Write one self-contained page over all datasets, and the verdict in words."""

from sclatent import files, job
from sclatent.report.page import describe, render
from sclatent.report.verdict import verdict_text

job.start(snakemake)
config = snakemake.params.config
datasets = describe(
    snakemake.params.datasets, snakemake.input.captions, config["benchmark"]["equivalence"]
)
page = render(snakemake.input.template, datasets, config)
verdict = verdict_text([dataset.verdict for dataset in datasets], snakemake.output.report)
files.write_text(snakemake.output.report, page)
files.write_text(snakemake.output.verdict, verdict)
print(f"wrote {snakemake.output.report}, {files.size(len(page))}, {len(datasets)} datasets")
