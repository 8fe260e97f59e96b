"""Runs of the real Snakefile in a folder of their own."""

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml


@dataclass
class Workflow:
    """The workflow in a working directory, with a config of its own."""

    root: Path
    folder: Path

    def run(self, *arguments: str, config: dict | None = None) -> subprocess.CompletedProcess:
        """Run Snakemake and return its exit code and what it printed."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.root / "Snakefile")]
        command += ["--directory", str(self.folder), "--cores", "2", *arguments]
        if config is not None:
            path = self.folder / f"my{os.getpid()}.yaml"
            path.write_text(yaml.safe_dump(config))
            command += ["--configfile", str(path)]
        environment = {**os.environ, "PYTHONWARNINGS": "default"}
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=1500,
        )


@pytest.fixture
def workflow(root, tmp_path) -> Workflow:
    """The workflow in an empty folder."""
    return Workflow(root, tmp_path)


SMALL = {
    "seeds": [0, 1],
    "latents": ["pca", "harmony", "dca", "scvi", "scanvi", "scvi_linear"],
    "variants": {"scvi_linear": {"decoder": "linear"}},
    "training": {"n_steps": 20, "minibatch": 64},
    "scanvi": {"training": {"n_steps": 10}},
    "dca": {"n_latent": 5, "n_hidden": 16},
    "scvi": {"n_latent": 5, "n_hidden": 16},
    "pca": {"n_components": 5},
    "genes": {"n_top": 100},
    "qc": {"min_counts": 20, "min_genes": 10},
    "benchmark": {"n_inits": 2, "n_importance_samples": 5},
    "denoise": {"latents": ["scvi_linear"], "n_samples": 2},
    "clusters": {"resolutions": [0.5, 1.0]},
}


@pytest.fixture(scope="session")
def small() -> dict:
    """Settings that make every stage quick."""
    return SMALL


@pytest.fixture(scope="session")
def finished(root, tmp_path_factory) -> Workflow:
    """A finished run over two datasets: one with batches and labels, one table with neither."""
    import numpy as np
    import pandas as pd

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished"
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    rate = np.exp(random.normal(0, 1, (3, 150)))[random.integers(0, 3, 200)]
    table = pd.DataFrame(
        random.poisson(rate),
        index=[f"cell{number}" for number in range(200)],
        columns=[f"gene{number}" for number in range(150)],
    )
    simulate = {"n_cells": 400, "n_genes": 300, "n_batches": 2, "n_types": 3}
    config = {
        **SMALL,
        "datasets": {
            "toy": {"source": "simulate", "simulate": simulate},
            "plain": {"source": "plain.csv"},
        },
    }
    workflow = Workflow(root, folder)
    workflow.config = config
    # The first worker runs, the others wait and use what it made.
    with open(shared / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "terminal.txt").exists():
            table.to_csv(folder / "plain.csv")
            result = workflow.run(config=config)
            assert result.returncode == 0, result.stdout[-6000:]
            (folder / "terminal.txt").write_text(result.stdout)
    return workflow
