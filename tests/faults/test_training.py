"""Cases 58 and 63: what becomes of a training that is told to stop, or whose loss breaks."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from sclatent import files

pytestmark = pytest.mark.workflow
LATENT = "results/toy/latent/scvi"
SIMULATE = {"n_cells": 400, "n_genes": 300, "n_batches": 2, "n_types": 3}
CONFIG = {
    "datasets": {"toy": {"source": "simulate", "simulate": SIMULATE}},
    "seeds": [0],
    "training": {"n_steps": 300, "minibatch": 64, "checkpoint_minutes": 1e-9},
    "scvi": {"n_latent": 5, "n_hidden": 16},
    "genes": {"n_top": 100},
    "qc": {"min_counts": 20, "min_genes": 10},
}


def snakemake(root, folder, **training) -> subprocess.Popen:
    """Start the workflow up to one trained scVI."""
    config = {**CONFIG, "training": {**CONFIG["training"], **training}}
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    command += ["--directory", str(folder), "--cores", "1", f"{LATENT}/seed0.h5ad"]
    command += ["--configfile", str(folder / "my.yaml")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """A folder with a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    running = snakemake(root, folder)
    output = running.communicate(timeout=900)[0]
    assert running.returncode == 0, output
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """The same folder before its training."""
    copy = tmp_path / "toy"
    shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("latent"))
    return copy


def test_case_58_a_training_that_gets_sigterm_exits_with_75_and_goes_on_bit_identical(
    root, folder, whole
):
    running = snakemake(root, folder)
    while not (folder / LATENT / "seed0.checkpoint.before").exists():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.01)
    for process in psutil.Process(running.pid).children(recursive=True):
        if process.cmdline()[1:] and process.cmdline()[1].endswith(".train_scvi.py"):
            process.send_signal(signal.SIGTERM)
    output = running.communicate(timeout=900)[0]
    assert running.returncode != 0
    assert re.search(r"SIGTERM: stopped before epoch \d+.*; the same command", output)
    assert f"FAILED train_scvi toy scvi 0: it ended with exit status {os.EX_TEMPFAIL}" in output
    assert not (folder / LATENT / "seed0.h5ad").exists()
    again = snakemake(root, folder)
    output = again.communicate(timeout=900)[0]
    assert again.returncode == 0, output
    assert re.search(r"going on from \S+seed0.checkpoint\S*, at epoch", output)
    for name in ("seed0.h5ad", "seed0.curve.tsv", "seed0.model/model.safetensors"):
        assert files.sha256(folder / LATENT / name) == files.sha256(whole / LATENT / name), name


def test_case_63_a_loss_that_breaks_twice_is_named_with_its_epoch_and_no_latent_is_written(
    root, folder
):
    running = snakemake(root, folder, learning_rate=1e6)
    output = running.communicate(timeout=900)[0]
    assert running.returncode != 0
    assert re.search(r"WARNING .* is not finite at .*epoch \d+.*third of the learning rate", output)
    line = r"ERROR .*the loss .* is not finite at .*epoch \d+.*lower training.learning_rate"
    assert re.search(line, output)
    assert re.search(line, (folder / "results/toy/logs/train_scvi/scvi.seed0.log").read_text())
    assert "Traceback" not in (folder / "results/toy/logs/train_scvi/scvi.seed0.log").read_text()
    assert not (folder / LATENT / "seed0.h5ad").exists()
    assert not (folder / LATENT / "seed0.model").exists()
