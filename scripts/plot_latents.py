"""Draw the first layout of every latent by cell type, batch and cluster."""

from sclatent import job

job.start(snakemake)

from sclatent.data.store import read_obs
from sclatent.figures.layouts import plot_latents, read_layouts, read_main_clusters
from sclatent.figures.style import write_figure

names = snakemake.params
obs = read_obs(snakemake.input.cells)
layouts = read_layouts(snakemake.input.layouts, names.latents, obs.index, names.method)
clusters = read_main_clusters(
    snakemake.input.clusters, names.latents, obs.index, names.main_resolution
)
write_figure(snakemake.output[0], plot_latents(layouts, clusters, obs, names.max_points))
