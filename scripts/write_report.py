"""Write one self-contained page over all datasets, and the verdict in words."""

from sclatent import job

job.start(snakemake)

from pathlib import Path

from sclatent import files, provenance
from sclatent.report.page import describe, render
from sclatent.report.verdict import verdict_text

config = snakemake.params.config
layout = provenance.ROOT / "workflow/report"
datasets = describe(
    snakemake.params.datasets, layout.glob("*.rst"), config["benchmark"]["equivalence"]
)
records = provenance.trace(snakemake.input, Path(snakemake.output.report).parent)
page = render(layout / "page.html.jinja", datasets, config, records)
verdict = verdict_text([dataset.verdict for dataset in datasets], snakemake.output.report)
files.write_text(snakemake.output.report, page)
files.write_text(snakemake.output.verdict, verdict)
print(f"wrote {snakemake.output.report}, {files.size(len(page))}, {len(datasets)} datasets")
