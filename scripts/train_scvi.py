"""Train scVI on the training cells; write the mean latent state of all cells."""

from sclatent import job

job.start(snakemake)

import pandas as pd

from sclatent import files
from sclatent.data.chosen import read_counts
from sclatent.data.store import write_latent
from sclatent.models import saved
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.checkpoint import checkpoint_of
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

seed = int(snakemake.wildcards.seed)
settings, training = Scvi(**snakemake.params.model), Training(**snakemake.params.training)
adata = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, training.memory_gb
)
min_cells = settings.needs_labels * snakemake.params.min_cells_per_label
cells, rows = gather_cells(adata, training.device, min_cells), split_rows(adata)
model = build_scvi(cells, rows.train, settings, seed)
checkpoint = checkpoint_of(snakemake)
curve = fit(model, cells, rows.train, rows.validation, training, seed, checkpoint=checkpoint)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
saved.save(snakemake.output.model, model, adata.var_names, cells)
files.write_table(snakemake.output.curve, pd.DataFrame(curve))
job.write_cost(snakemake.output.cost, checkpoint.earlier)
checkpoint.remove()
