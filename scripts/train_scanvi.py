"""Go on from scVI with the labels that training may see; predict the type of every cell."""

from dataclasses import replace

import pandas as pd

from sclatent import files, job
from sclatent.data.store import read_cells, write_latent
from sclatent.labels.tables import labels_table, write_labels
from sclatent.models.scanvi import Scanvi, build_scanvi, describe_scanvi
from sclatent.training.checkpoint import save_model
from sclatent.training.loader import gather_cells, seen_labels, split_rows
from sclatent.training.loop import Training, fit, predict

job.start(snakemake)
seed = int(snakemake.wildcards.seed)
settings = Scanvi(**snakemake.params.model)
training = replace(Training(**snakemake.params.training), n_steps=settings.n_steps)
adata = read_cells(
    snakemake.input.cells, genes=snakemake.input.genes, splits=snakemake.input.splits
)
codes, classes = seen_labels(adata, settings.min_cells_per_label)
cells, rows = gather_cells(adata, training.device, codes), split_rows(adata)
model = build_scanvi(snakemake.input.scvi, cells, adata.var_names, len(classes), settings, seed)
curve = fit(model, cells, rows.train, rows.validation, training, seed)
probabilities = predict(model.probabilities, cells)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
write_labels(snakemake.output.labels, labels_table(adata.obs_names, classes, probabilities))
save_model(
    snakemake.output.model,
    model,
    describe_scanvi(model, adata.var_names, cells.batches, classes),
)
files.write_table(snakemake.output.curve, pd.DataFrame(curve))
job.write_cost(snakemake.output.cost)
