"""Measure how likely a trained model finds held-out cells, by importance sampling."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.benchmark.heldout import score_model
from sclatent.data.chosen import read_counts
from sclatent.models import saved
from sclatent.training.loader import split_rows

params, seed = snakemake.params, int(snakemake.wildcards.seed)
adata = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, snakemake.params.memory_gb
)
model, cells = saved.load_for(snakemake.input.model, adata, params.device)
row = score_model(model, cells, split_rows(adata), params.n_samples, params.max_cells, seed)
files.write_table(snakemake.output.likelihood, row)
