"""Simulate counts with known truth."""

from sclatent import files, job
from sclatent.data.simulate import Simulation, simulate

job.start(snakemake)
files.write_h5ad(snakemake.output.counts, simulate(Simulation(**snakemake.params.simulate)))
