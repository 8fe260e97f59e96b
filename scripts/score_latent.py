"""Measure one latent: labels on cells whose labels were hidden, batches on all cells."""

from sclatent import files, job
from sclatent.benchmark.score import BenchmarkSettings, prepare, score_latent
from sclatent.data.store import read_cells, read_latent

job.start(snakemake)
cells = read_cells(
    snakemake.input.cells, genes=snakemake.input.genes, splits=snakemake.input.splits
)
latent = read_latent(snakemake.input.latent, cells.obs_names)
name, seed = snakemake.wildcards.latent, int(snakemake.wildcards.seed)
judge = prepare(cells, BenchmarkSettings(**snakemake.params.benchmark), seed)
files.write_table(snakemake.output.scores, score_latent(latent, judge, name, seed))
