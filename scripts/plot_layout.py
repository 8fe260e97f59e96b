"""Draw the layouts of one latent from several layout seeds side by side."""

from sclatent import job

job.start(snakemake)

from sclatent.data.store import read_obs
from sclatent.figures.layouts import plot_layouts, read_layout
from sclatent.figures.style import write_figure

names = snakemake.wildcards
obs = read_obs(snakemake.input.cells)
layout = read_layout(snakemake.input.layout, obs.index, names.method)
figure = plot_layouts(layout, obs, names.latent, snakemake.params.max_points)
write_figure(snakemake.output[0], figure)
