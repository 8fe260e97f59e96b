"""Predict labels with probabilities from PCA, by logistic regression or nearest neighbours."""

from sclatent import job

job.start(snakemake)

from sclatent.data.store import read_latent, read_obs
from sclatent.labels.tables import labels_table, write_labels
from sclatent.labels.transfer import TransferSettings, transfer_labels

obs = read_obs(snakemake.input.cells, snakemake.input.splits)
latent = read_latent(snakemake.input.latent, obs.index)
classes, probabilities = transfer_labels(
    latent,
    labels=obs["cell_type"].to_numpy(dtype=str),
    learnt=obs["labels_split"].to_numpy() == "train",
    classifier=snakemake.wildcards.classifier,
    settings=TransferSettings(**snakemake.params.transfer),
)
table = labels_table(obs.index, classes, probabilities)
write_labels(snakemake.output.labels, table)
