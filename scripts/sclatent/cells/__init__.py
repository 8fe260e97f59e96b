"""Graphs, clusters and layouts of a latent."""
