"""Fit principal components on the training cells; project all."""

from sclatent import job

job.start(snakemake)

import numpy as np

from sclatent.baselines.pca import LogNormalised, Pca, fit_pca
from sclatent.data.chosen import read_counts
from sclatent.data.store import write_latent

cells = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, snakemake.params.memory_gb
)
values = LogNormalised(cells.X, cells.obs["total_counts"].to_numpy())
train = np.asarray(cells.obs["cells_split"] == "train")
latent = fit_pca(values, train, Pca(**snakemake.params.pca))
write_latent(snakemake.output.latent, latent, cells.obs_names)
job.write_cost(snakemake.output.cost)
