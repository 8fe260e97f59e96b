"""Decide which cells train, validate and test, and whose labels are seen, before all else."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.splits import Shares, split_cells
from sclatent.data.store import read_obs

splits = split_cells(
    read_obs(snakemake.input.cells),
    Shares(**snakemake.params.shares),
    int(snakemake.wildcards.seed),
    snakemake.params.hidden_batches,
)
files.write_table(snakemake.output.splits, splits)
