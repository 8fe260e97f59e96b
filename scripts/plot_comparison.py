"""Draw every metric of every latent with seeds, controls and intervals."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.figures.comparison import plot_comparison
from sclatent.figures.style import write_figure

figure = plot_comparison(
    files.read_table(snakemake.input.comparison), files.read_table(snakemake.input.summary)
)
write_figure(snakemake.output[0], figure)
