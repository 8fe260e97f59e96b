"""Score every classifier on the test labels, beside the majority vote."""

from sclatent import files, job
from sclatent.data.store import read_cells
from sclatent.labels.scores import score_all

job.start(snakemake)
cells = read_cells(snakemake.input.cells)
scores = score_all(
    snakemake.input.labels,
    snakemake.input.splits,
    snakemake.params.classifiers,
    snakemake.params.seeds,
    cells.obs["cell_type"],
)
files.write_table(snakemake.output.scores, scores)
