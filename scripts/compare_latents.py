"""Gather scores and costs; compare each latent with PCA, seed by seed, with intervals."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.benchmark.comparison import gather, read_costs, read_scores, summarise_all
from sclatent.benchmark.score import BenchmarkSettings

settings = BenchmarkSettings(**snakemake.params.benchmark)
scores = read_scores(snakemake.input.scores, snakemake.input.controls)
costs = read_costs(
    snakemake.input.costs,
    snakemake.params.latents,
    snakemake.params.seeds,
    snakemake.params.on_top_of,
)
files.write_table(snakemake.output.comparison, gather(scores, costs))
summary = summarise_all(scores, costs, settings.equivalence)
files.write_table(snakemake.output.summary, summary)
