"""Fit principal components on the training cells; project all."""

import numpy as np

from sclatent import job
from sclatent.baselines.pca import Pca, fit_pca, log_normalise
from sclatent.data.store import read_cells, write_latent

job.start(snakemake)
cells = read_cells(
    snakemake.input.cells, genes=snakemake.input.genes, splits=snakemake.input.splits
)
values = log_normalise(cells.X, cells.obs["total_counts"].to_numpy())
train = np.asarray(cells.obs["cells_split"] == "train")
latent = fit_pca(values, train, Pca(**snakemake.params.pca))
write_latent(snakemake.output.latent, latent, cells.obs_names)
job.write_cost(snakemake.output.cost)
