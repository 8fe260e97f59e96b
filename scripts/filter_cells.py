"""Drop empty droplets, dying cells and doublets, batch by batch, and count what went why."""

from sclatent import files, job
from sclatent.data.qc import Filters, filter_cells
from sclatent.data.store import read_cells

job.start(snakemake)
filtered = filter_cells(read_cells(snakemake.input.counts), Filters(**snakemake.params.filters))
files.write_h5ad(snakemake.output.cells, filtered.cells)
files.write_table(snakemake.output.metrics, filtered.metrics)
files.write_table(snakemake.output.thresholds, filtered.thresholds)
files.write_table(snakemake.output.removed, filtered.removed)
