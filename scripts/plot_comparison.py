"""Draw every metric of every latent with seeds, controls and intervals."""

from sclatent import files, job
from sclatent.figures.comparison import plot_comparison

job.start(snakemake)
figure = plot_comparison(
    files.read_table(snakemake.input.comparison), files.read_table(snakemake.input.summary)
)
files.write_figure(snakemake.output[0], figure)
