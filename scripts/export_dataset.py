"""Gather counts, latents, labels, clusters and layouts of one seed in one h5ad."""

from itertools import product

from sclatent import files, job
from sclatent.data.store import read_cells
from sclatent.report.export import gather

job.start(snakemake)
names = snakemake.params
dataset = gather(
    read_cells(snakemake.input.cells, splits=snakemake.input.splits),
    genes=snakemake.input.genes,
    latents=dict(zip(names.latents, snakemake.input.latents, strict=True)),
    labels=dict(zip(names.classifiers, snakemake.input.labels, strict=True)),
    clusters=dict(zip(names.latents, snakemake.input.clusters, strict=True)),
    layouts=dict(zip(product(names.latents, names.methods), snakemake.input.layouts, strict=True)),
    loadings=dict(zip(names.linear, snakemake.input.loadings, strict=True)),
    main=names.main,
)
files.write_h5ad(snakemake.output.dataset, dataset)
print(f"wrote {dataset.n_obs:,} cells x {dataset.n_vars:,} genes to {snakemake.output.dataset}")
