"""Simulate counts with known truth."""

from sclatent import job

job.start(snakemake)

from sclatent import files
from sclatent.data.simulate import Simulation, simulate

files.write_h5ad(snakemake.output.counts, simulate(Simulation(**snakemake.params.simulate)))
