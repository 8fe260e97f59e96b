"""Draw accuracy, reliability and confusions of the label classifiers on test labels."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.store import read_obs
from sclatent.figures.labels import plot_labels, read_test_labels
from sclatent.figures.style import write_figure

tested = read_test_labels(
    snakemake.input.labels,
    snakemake.input.splits,
    snakemake.params.classifiers,
    snakemake.params.seeds,
    read_obs(snakemake.input.cells),
)
scores = files.read_table(snakemake.input.scores)
write_figure(snakemake.output[0], plot_labels(tested, scores))
