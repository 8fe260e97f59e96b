"""Compare the count models by the likelihood of held-out cells, seed by seed."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.benchmark.likelihood import compare, read_likelihoods

names = snakemake.params
rows = read_likelihoods(snakemake.input.likelihoods, names.latents, names.seeds)
files.write_table(snakemake.output.comparison, compare(rows))
