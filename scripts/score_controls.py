"""Measure embeddings whose scores are known beforehand: shuffled cells, and the labels."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.benchmark.controls import score_controls
from sclatent.benchmark.score import BenchmarkSettings, prepare
from sclatent.data.chosen import read_counts
from sclatent.data.store import read_latent

cells = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, snakemake.params.memory_gb
)
latent = read_latent(snakemake.input.latent, cells.obs_names)
seed = int(snakemake.wildcards.seed)
judge = prepare(cells, BenchmarkSettings(**snakemake.params.benchmark), seed)
scores = score_controls(latent, cells.obs["cell_type"], judge, seed)
files.write_table(snakemake.output.scores, scores)
