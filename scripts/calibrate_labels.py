"""Fit the temperature of a classifier on the calibration cells; write its final labels."""

from sclatent import job

job.start(snakemake)

from sclatent.data.store import read_obs
from sclatent.labels.calibration import calibrate
from sclatent.labels.tables import labels_table, read_labels, write_labels

obs = read_obs(snakemake.input.cells, snakemake.input.splits)
calibrated = calibrate(
    read_labels(snakemake.input.labels, obs.index),
    obs["cell_type"].to_numpy(dtype=str),
    obs["labels_split"].to_numpy(dtype=str),
)
table = labels_table(calibrated.cells, calibrated.classes, calibrated.probabilities)
write_labels(snakemake.output.labels, table)
