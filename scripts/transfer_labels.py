"""Predict labels with probabilities from PCA, by logistic regression or nearest neighbours."""

from sclatent import job
from sclatent.data.store import read_cells, read_latent
from sclatent.labels.tables import labels_table, write_labels
from sclatent.labels.transfer import TransferSettings, transfer_labels

job.start(snakemake)
cells = read_cells(snakemake.input.cells, splits=snakemake.input.splits)
latent = read_latent(snakemake.input.latent, cells.obs_names)
classes, probabilities = transfer_labels(
    latent,
    labels=cells.obs["cell_type"].to_numpy(dtype=str),
    learnt=cells.obs["labels_split"].to_numpy() == "train",
    classifier=snakemake.wildcards.classifier,
    settings=TransferSettings(**snakemake.params.transfer),
)
table = labels_table(cells.obs_names, classes, probabilities)
write_labels(snakemake.output.labels, table)
