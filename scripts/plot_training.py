"""Draw the training curves of the count models."""

from sclatent import job

job.start(snakemake)

from sclatent.figures.style import write_figure
from sclatent.figures.training import plot_training, read_curves

curves = read_curves(snakemake.input.curves, snakemake.params.latents, snakemake.params.seeds)
write_figure(snakemake.output[0], plot_training(curves))
