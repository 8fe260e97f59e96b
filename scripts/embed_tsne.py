"""Lay the latent out with t-SNE from several seeds, for viewing only."""

from sclatent import job

job.start(snakemake)

import anndata

from sclatent import files
from sclatent.cells.layout import LayoutSettings, lay_out_tsne, write_layout

settings = LayoutSettings(**snakemake.params.layout)
latent = anndata.read_h5ad(files.verified(snakemake.input.latent))
write_layout(snakemake.output.layout, lay_out_tsne(latent.X, latent.obs_names, settings))
