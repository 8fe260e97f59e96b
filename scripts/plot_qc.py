"""Draw the quality metrics before and after filtering."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.figures.qc import plot_qc
from sclatent.figures.style import write_figure

metrics = files.read_table(snakemake.input.metrics)
thresholds = files.read_table(snakemake.input.thresholds)
write_figure(snakemake.output[0], plot_qc(metrics, thresholds))
