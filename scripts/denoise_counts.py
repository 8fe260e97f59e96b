"""Write the expected expression of every cell under a trained model."""

from sclatent import job

job.start(snakemake)

import numpy as np

from sclatent.data.chosen import read_counts
from sclatent.data.store import write_expression
from sclatent.models import saved
from sclatent.models.posterior import denoise_blocks

names, settings = snakemake.wildcards, snakemake.params.denoise
adata = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, snakemake.params.memory_gb
)
model, cells = saved.load_for(snakemake.input.model, adata, snakemake.params.device)
rows = np.arange(adata.n_obs)
blocks = denoise_blocks(model, cells, rows, **settings, seed=int(names.seed))
made = {"latent": names.latent, "seed": int(names.seed), **settings}
write_expression(snakemake.output.expression, blocks, adata.obs_names, adata.var_names, made)
