"""Find the nearest neighbours of each cell in the latent and weigh them."""

from sclatent import job

job.start(snakemake)

import anndata

from sclatent import files
from sclatent.cells.graph import GraphSettings, build_graph, write_graph

settings = GraphSettings(**snakemake.params.graph)
latent = anndata.read_h5ad(files.verified(snakemake.input.latent))
graph = build_graph(latent.X, latent.obs_names, settings, seed=int(snakemake.wildcards.seed))
write_graph(snakemake.output.graph, graph)
