"""Correct the PCA latent of a dataset for its batches with Harmony."""

from sclatent import job

job.start(snakemake)

from sclatent.baselines.harmony import Harmony, correct_harmony
from sclatent.data.store import read_latent, read_obs, write_latent

obs = read_obs(snakemake.input.cells)
latent = correct_harmony(
    read_latent(snakemake.input.latent, cells=obs.index),
    obs["batch"],
    Harmony(**snakemake.params.harmony),
    seed=int(snakemake.wildcards.seed),
)
write_latent(snakemake.output.latent, latent, obs.index)
job.write_cost(snakemake.output.cost)
