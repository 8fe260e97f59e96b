"""Compare the count models by the likelihood of held-out cells, seed by seed."""

from sclatent import files, job
from sclatent.benchmark.likelihood import compare, read_likelihoods

job.start(snakemake)
names = snakemake.params
rows = read_likelihoods(snakemake.input.likelihoods, names.latents, names.seeds)
files.write_table(snakemake.output.comparison, compare(rows))
