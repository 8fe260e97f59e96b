"""Read the samples of a dataset, refuse what is not raw counts, name batch and cell_type."""

from sclatent import job

job.start(snakemake)

from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset, write_counts

counts = read_dataset(
    snakemake.wildcards.dataset,
    Entry(**snakemake.params.dataset),
    snakemake.params.samples,
    Limits(**snakemake.params.limits),
)
write_counts(snakemake.output.counts, counts)
