"""Train scANVI with the labels that training may see; predict the type of every cell."""

from sclatent import job

job.start(snakemake)

import pandas as pd

from sclatent import files
from sclatent.data.chosen import read_counts
from sclatent.data.store import write_latent
from sclatent.labels.tables import labels_table, write_labels
from sclatent.models import saved
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi
from sclatent.training.checkpoint import checkpoint_of
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

seed = int(snakemake.wildcards.seed)
settings, training = Scanvi(**snakemake.params.model), Training(**snakemake.params.training)
adata = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, training.memory_gb
)
cells = gather_cells(adata, training.device, settings.min_cells_per_label)
rows, scvi_settings = split_rows(adata), Scvi(**snakemake.params.scvi)
scvi = saved.load_or_build(
    snakemake.input.get("scvi"), adata.var_names, cells, rows.train, scvi_settings, seed
)
model = build_scanvi(scvi, cells, settings, seed)
checkpoint, labelled = checkpoint_of(snakemake), settings.labelled
curve = fit(model, cells, rows.train, rows.validation, training, seed, labelled, checkpoint)
probabilities = predict(model.probabilities, cells)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
write_labels(snakemake.output.labels, labels_table(adata.obs_names, cells.classes, probabilities))
saved.save(snakemake.output.model, model, adata.var_names, cells)
files.write_table(snakemake.output.curve, pd.DataFrame(curve))
job.write_cost(snakemake.output.cost, checkpoint.earlier)
checkpoint.remove()
