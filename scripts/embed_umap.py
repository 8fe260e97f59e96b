"""Lay the graph out in two dimensions from several seeds, for viewing only."""

from sclatent import job

job.start(snakemake)

from sclatent.cells.graph import read_graph
from sclatent.cells.layout import LayoutSettings, lay_out_umap, write_layout
from sclatent.data.store import read_latent

settings = LayoutSettings(**snakemake.params.layout)
graph = read_graph(snakemake.input.graph)
latent = read_latent(snakemake.input.latent, graph.cells)
write_layout(snakemake.output.layout, lay_out_umap(latent, graph, settings))
