import re
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


def kill_training(folder, command: list[str], number: int) -> tuple[int, str]:
    """Run Snakemake and kill its training after a few checkpoints; return its status and output."""
    seen = written(folder)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = subprocess.Popen(command, **pipes)
    while written(folder) == seen:
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.01)
    for process in psutil.Process(running.pid).children(recursive=True):
        if process.cmdline()[1:] and process.cmdline()[1].endswith(".train_scvi.py"):
            process.send_signal(number)
    output = running.communicate(timeout=600)[0]
    return running.returncode, output


def written(folder) -> int:
    """Return which checkpoint is the last but one; each write makes a new file."""
    path = folder / LATENT / "seed0.checkpoint.before"
    return path.stat().st_ino if path.exists() else 0


def test_a_killed_training_goes_on_with_the_same_command_and_on_a_retry_and_ends_the_same(
    workflow, finished
):
    settings = {**finished.config, "datasets": {"toy": finished.config["datasets"]["toy"]}}
    path = workflow.folder / "my.yaml"

    def configure(minutes):
        training = {**settings["training"], "checkpoint_minutes": minutes}
        path.write_text(yaml.safe_dump({**settings, "training": training}))

    configure(1e-9)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(workflow.root / "Snakefile")]
    command += ["--directory", str(workflow.folder), "--cores", "2", f"{LATENT}/seed0.h5ad"]
    command += ["--configfile", str(path)]
    status, output = kill_training(workflow.folder, command, signal.SIGKILL)
    assert status != 0, output
    assert not (workflow.folder / LATENT / "seed0.h5ad").exists()
    again = [*command, "--retries", "1"]
    status, output = kill_training(workflow.folder, again, signal.SIGTERM)
    assert status == 0, output
    assert "SIGTERM: stopped before epoch" in output
    assert len(re.findall(rf"going on from {LATENT}/seed0.checkpoint\S*, at epoch", output)) == 2
    for name in ("seed0.h5ad", "seed0.curve.tsv", "seed0.model/model.safetensors"):
        here, there = (side.folder / LATENT / name for side in (workflow, finished))
        assert files.sha256(here) == files.sha256(there), name
    assert not list((workflow.folder / LATENT).glob("*checkpoint*"))
    configure(7)
    dry = subprocess.run([*command, "-n"], capture_output=True, text=True)
    assert "Nothing to be done" in dry.stdout + dry.stderr
