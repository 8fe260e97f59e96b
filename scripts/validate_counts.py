"""Read the samples of a dataset, refuse what is not raw counts, name batch and cell_type."""

from sclatent import files, job
from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset

job.start(snakemake)
counts = read_dataset(
    snakemake.wildcards.dataset,
    Entry(**snakemake.params.dataset),
    snakemake.params.samples,
    Limits(**snakemake.params.limits),
)
files.write_h5ad(snakemake.output.counts, counts)
