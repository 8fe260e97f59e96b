"""Bring in a model that scvi-tools trained; write the mean latent state of all cells."""

import pandas as pd

from sclatent import files, job
from sclatent.data.store import read_cells, write_latent
from sclatent.models import saved
from sclatent.models.imports import adopt, select_genes
from sclatent.models.published import read_published
from sclatent.training.loop import predict

job.start(snakemake)
folder = snakemake.params.folder
published = read_published(folder)
adata = select_genes(read_cells(snakemake.input.cells), published, folder)
model, cells = adopt(published, adata, folder, snakemake.params.device)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
saved.save(snakemake.output.model, model, adata.var_names, cells)
files.write_table(snakemake.output.genes, pd.DataFrame({"gene": published.genes}))
job.write_cost(snakemake.output.cost)
