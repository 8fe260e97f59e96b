"""Gather counts, latents, labels, clusters and layouts of one seed in one h5ad."""

from sclatent import job

job.start(snakemake)

from itertools import product

from sclatent.data.blocks import open_dataset, write_dataset
from sclatent.report.export import gather

names = snakemake.params
dataset = gather(
    open_dataset(snakemake.input.cells, splits=snakemake.input.splits),
    genes=snakemake.input.genes,
    latents=dict(zip(names.latents, snakemake.input.latents, strict=True)),
    labels=dict(zip(names.classifiers, snakemake.input.labels, strict=True)),
    clusters=dict(zip(names.latents, snakemake.input.clusters, strict=True)),
    layouts=dict(zip(product(names.latents, names.methods), snakemake.input.layouts, strict=True)),
    loadings=dict(zip(names.linear, snakemake.input.loadings, strict=True)),
    main=names.main,
)
write_dataset(snakemake.output.dataset, dataset)
n_cells, n_genes = dataset.counts.shape
print(f"wrote {n_cells:,} cells x {n_genes:,} genes to {snakemake.output.dataset}")
