"""Bring in a model that scvi-tools trained; write the mean latent state of all cells."""

from sclatent import job

job.start(snakemake)

import pandas as pd

from sclatent import files
from sclatent.data.chosen import read_counts
from sclatent.data.store import read_genes, write_latent
from sclatent.models import saved
from sclatent.models.imports import adopt, check_genes
from sclatent.models.published import read_published
from sclatent.training.loop import predict

folder = snakemake.params.folder
published = read_published(folder)
check_genes(read_genes(snakemake.input.cells), published, folder)
files.write_table(snakemake.output.genes, pd.DataFrame({"gene": published.genes}))
adata = read_counts(
    snakemake.input.cells, snakemake.output.genes, memory_gb=snakemake.params.memory_gb
)
model, cells = adopt(published, adata, folder, snakemake.params.device)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
saved.save(snakemake.output.model, model, adata.var_names, cells)
job.write_cost(snakemake.output.cost)
