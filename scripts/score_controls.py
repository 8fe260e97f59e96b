"""Measure embeddings whose scores are known beforehand: shuffled cells, and the labels."""

from sclatent import files, job
from sclatent.benchmark.controls import score_controls
from sclatent.benchmark.score import BenchmarkSettings, prepare
from sclatent.data.store import read_cells, read_latent

job.start(snakemake)
cells = read_cells(
    snakemake.input.cells, genes=snakemake.input.genes, splits=snakemake.input.splits
)
latent = read_latent(snakemake.input.latent, cells.obs_names)
seed = int(snakemake.wildcards.seed)
judge = prepare(cells, BenchmarkSettings(**snakemake.params.benchmark), seed)
scores = score_controls(latent, cells.obs["cell_type"], judge, seed)
files.write_table(snakemake.output.scores, scores)
