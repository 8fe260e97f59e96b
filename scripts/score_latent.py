"""Measure one latent: labels on cells whose labels were hidden, batches on all cells."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.benchmark.score import BenchmarkSettings, prepare, score_latent
from sclatent.data.chosen import read_counts
from sclatent.data.store import read_latent

cells = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, snakemake.params.memory_gb
)
latent = read_latent(snakemake.input.latent, cells.obs_names)
name, seed = snakemake.wildcards.latent, int(snakemake.wildcards.seed)
judge = prepare(cells, BenchmarkSettings(**snakemake.params.benchmark), seed)
files.write_table(snakemake.output.scores, score_latent(latent, judge, name, seed))
