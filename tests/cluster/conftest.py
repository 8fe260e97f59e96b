"""Runs of the real Snakefile through a real Slurm, of one node on loopback."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

CONF = Path(os.environ.get("SLURM_TEST_DIR", "/tmp/sclatent-slurm"), "slurm.conf")
LINK = Path("/etc/slurm/slurm.conf")
PROOFS = "SCLATENT_PROOFS" in os.environ
"""Whether the default config is sent instead of a small one: make proofs."""
PATIENCE = 7200 if PROOFS else 2400
"""Seconds until a test gives up: other work may share the machine."""
SMALL = {
    "seeds": [0],
    "latents": ["pca", "scvi", "scanvi"],
    "training": {"n_steps": 20, "minibatch": 64, "checkpoint_minutes": 1e-9},
    "scanvi": {"training": {"n_steps": 10}},
    "scvi": {"n_latent": 5, "n_hidden": 16},
    "pca": {"n_components": 5},
    "genes": {"n_top": 100},
    "benchmark": {"n_inits": 2, "n_importance_samples": 5},
    "clusters": {"resolutions": [0.5, 1.0]},
}
"""Settings that make every stage quick, and a checkpoint after every step."""
TOY = {
    **SMALL,
    "training": {**SMALL["training"], "n_steps": 600, "min_epochs": 10, "max_epochs": 1000},
    "qc": {"min_counts": 20, "min_genes": 10},
    "datasets": {
        "toy": {
            "source": "simulate",
            "simulate": {"n_cells": 400, "n_genes": 300, "n_batches": 2, "n_types": 3},
        }
    },
}
"""One small simulated dataset, whose training takes some seconds."""


@dataclass
class Run:
    """The workflow in a folder of its own."""

    root: Path
    folder: Path
    config: dict
    target = "results/toy/latent/scvi/seed0.h5ad"

    @property
    def latent(self) -> Path:
        """The folder of the toy's scVI."""
        return (self.folder / self.target).parent

    def command(self, *arguments: str) -> list[str]:
        """Return how Snakemake is called; arguments that are options come after a target."""
        path = self.folder / "my.yaml"
        path.write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.root / "Snakefile")]
        return [*command, "--directory", str(self.folder), *arguments, "--configfile", str(path)]

    def locally(self, *arguments: str) -> str:
        """Run Snakemake without Slurm; return what it printed."""
        return self.end(self.begin(*arguments, "--cores", "2"))

    def submitted(self, *arguments: str, good: bool = True) -> str:
        """Run Snakemake with the Slurm profile; return what it printed."""
        return self.end(self.submit(*arguments), good)

    def submit(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake with the Slurm profile, asking often how the jobs are."""
        profile = ["--workflow-profile", str(self.root / "profiles/slurm"), "--latency-wait", "30"]
        profile += ["--cores", "2"]  # so that a group leaves room for the jobs of another test
        often = ["--slurm-status-command", "squeue"]
        often += ["--slurm-init-seconds-before-status-checks", "3"]
        return self.begin(*arguments, *profile, *often)

    def begin(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own."""
        log = open(self.folder / "terminal.txt", "w+")  # noqa: SIM115, it is read when all is over
        running = subprocess.Popen(
            self.command(*arguments),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # tests that run in the background of a shell ignore it, and so would their children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.log = log
        return running

    def end(self, running: subprocess.Popen, good: bool = True) -> str:
        """Wait for the end of a run, which is as expected; return what it printed."""
        status = running.wait(PATIENCE)
        with running.log as log:
            log.seek(0)
            output = log.read()
        assert (status == 0) == good, output[-6000:]
        return output

    def snakemake_log(self) -> str:
        """Return Snakemake's own log of the last run."""
        return max(self.folder.glob(".snakemake/log/*.log")).read_text()

    def wait_for(self, condition, running: subprocess.Popen | None = None) -> None:
        """Wait until something is so, while a run lasts."""
        last = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < last, "waited too long"
            assert running is None or running.poll() is None, self.end(running)
            time.sleep(0.05)

    def jobs(self, *states: str) -> list[str]:
        """Return the numbers of this run's Slurm jobs in these states."""
        text = (self.folder / "terminal.txt").read_text()
        name = re.search(r"SLURM run ID: (\S+)", text)[1]
        command = ["squeue", "--noheader", "--format=%A", f"--name={name}"]
        command.append(f"--states={','.join(states)}")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def training(self, running: subprocess.Popen) -> psutil.Process:
        """Return the process that trains, once it has written two checkpoints."""
        self.wait_for(lambda: (self.latent / "seed0.checkpoint.before").exists(), running)
        found = []

        def find():
            found[:] = [process for process in psutil.process_iter() if self.trains(process)]
            return found

        self.wait_for(find, running)
        return found[0]

    def trains(self, process: psutil.Process) -> bool:
        """Say whether a process runs the script of train_scvi for this run."""
        try:
            words, here = process.cmdline(), process.cwd()
        except psutil.Error:
            return False
        return here == str(self.folder) and any(".train_scvi.py" in word for word in words[1:2])


@pytest.fixture(scope="session")
def slurm():
    """The Slurm that `make test-cluster` starts and ends, or a skip that says why there is none."""
    if LINK.resolve() != CONF or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip(
            "the Slurm of tests/cluster/slurm.sh does not run: it needs root and its packages"
        )


@pytest.fixture
def run(root, tmp_path, slurm) -> Run:
    """The workflow in an empty folder, with the default datasets."""
    return Run(root, tmp_path, {} if PROOFS else SMALL)


@pytest.fixture(scope="session")
def trained(root, tmp_path_factory, slurm) -> Run:
    """The toy with its scVI trained in one go, on this machine and without Slurm."""
    local = Run(root, tmp_path_factory.mktemp("trained"), TOY)
    local.locally(Run.target)
    return local


@pytest.fixture
def toy(trained, tmp_path) -> Run:
    """The toy before its training: a copy of what the training reads."""
    folder = tmp_path / "toy"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("latent"))
    return Run(trained.root, folder, TOY)
