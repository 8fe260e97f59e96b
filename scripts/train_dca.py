"""Train DCA on the training cells; write the bottleneck of all cells."""

from sclatent import job

job.start(snakemake)

import pandas as pd

from sclatent import files
from sclatent.data.chosen import read_counts
from sclatent.data.store import write_latent
from sclatent.models import saved
from sclatent.models.dca import Dca, build_dca
from sclatent.training.checkpoint import checkpoint_of
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

seed = int(snakemake.wildcards.seed)
training = Training(**snakemake.params.training)
adata = read_counts(
    snakemake.input.cells, snakemake.input.genes, snakemake.input.splits, training.memory_gb
)
cells, rows = gather_cells(adata, training.device), split_rows(adata)
model = build_dca(cells, rows.train, Dca(**snakemake.params.model), seed)
checkpoint = checkpoint_of(snakemake)
curve = fit(model, cells, rows.train, rows.validation, training, seed, checkpoint=checkpoint)
write_latent(snakemake.output.latent, predict(model.latent, cells), adata.obs_names)
saved.save(snakemake.output.model, model, adata.var_names, cells)
files.write_table(snakemake.output.curve, pd.DataFrame(curve))
job.write_cost(snakemake.output.cost, checkpoint.earlier)
checkpoint.remove()
