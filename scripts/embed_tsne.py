"""Lay the latent out with t-SNE from several seeds, for viewing only."""

import anndata

from sclatent import files, job
from sclatent.cells.layout import LayoutSettings, lay_out_tsne, write_layout

job.start(snakemake)
settings = LayoutSettings(**snakemake.params.layout)
latent = anndata.read_h5ad(files.verified(snakemake.input.latent))
write_layout(snakemake.output.layout, lay_out_tsne(latent.X, latent.obs_names, settings))
