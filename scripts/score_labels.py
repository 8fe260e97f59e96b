"""Score every classifier on the test labels, beside the majority vote."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.store import read_obs
from sclatent.labels.scores import score_all

scores = score_all(
    snakemake.input.labels,
    snakemake.input.splits,
    snakemake.params.classifiers,
    snakemake.params.seeds,
    read_obs(snakemake.input.cells)["cell_type"],
)
files.write_table(snakemake.output.scores, scores)
