"""Drop empty droplets, dying cells and doublets, batch by batch, and count what went why."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.blocks import open_dataset, write_dataset
from sclatent.data.qc import Filters, filter_cells

counts, filters = open_dataset(snakemake.input.counts), Filters(**snakemake.params.filters)
filtered = filter_cells(counts, filters, n_threads=snakemake.threads)
write_dataset(snakemake.output.cells, filtered.cells)
files.write_table(snakemake.output.metrics, filtered.metrics)
files.write_table(snakemake.output.thresholds, filtered.thresholds)
files.write_table(snakemake.output.removed, filtered.removed)
