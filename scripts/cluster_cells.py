"""Cluster the graph with Leiden at several resolutions."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.cells.clusters import ClusterSettings, cluster_cells
from sclatent.cells.graph import read_graph

settings = ClusterSettings(**snakemake.params.clusters)
graph = read_graph(snakemake.input.graph)
seed = int(snakemake.wildcards.seed)
table = cluster_cells(graph.cells, graph.connectivities, settings, seed)
files.write_table(snakemake.output.clusters, table)
