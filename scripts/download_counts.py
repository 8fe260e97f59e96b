"""Download one file and put it in place once its size, type and hash are right."""

from sclatent import job

job.start(snakemake)

from sclatent.data.download import fetch

sample = snakemake.params.sample
fetch(
    sample["source"],
    snakemake.output[0],
    sha256=sample.get("sha256"),
    mirrors=sample.get("mirrors", ()),
)
