"""Draw the training curves of the count models."""

from sclatent import files, job
from sclatent.figures.training import plot_training, read_curves

job.start(snakemake)
curves = read_curves(snakemake.input.curves, snakemake.params.latents, snakemake.params.seeds)
files.write_figure(snakemake.output[0], plot_training(curves))
