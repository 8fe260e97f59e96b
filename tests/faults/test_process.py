"""Cases 57, 61 and 64: runs that are killed, run twice at once, or run somewhere else."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from sclatent import files

PROOFS = "SCLATENT_PROOFS" in os.environ
"""Whether the default run is killed twenty times, and not a small one a few times: make proofs."""
KILLS = 20 if PROOFS else 5
SIMULATE = {"n_cells": 300, "n_genes": 200, "n_batches": 2, "n_types": 3}
TINY = {
    "datasets": {"toy": {"source": "simulate", "simulate": SIMULATE}},
    "seeds": [0],
    "latents": ["pca", "harmony", "dca", "scvi", "scanvi"],
    "training": {"n_steps": 20, "minibatch": 64, "checkpoint_minutes": 1e-9},
    "scanvi": {"training": {"n_steps": 10}},
    "dca": {"n_latent": 5, "n_hidden": 16},
    "scvi": {"n_latent": 5, "n_hidden": 16},
    "pca": {"n_components": 5},
    "genes": {"n_top": 100},
    "qc": {"min_counts": 20, "min_genes": 10},
    "benchmark": {"n_inits": 2, "n_importance_samples": 5},
    "clusters": {"resolutions": [0.5, 1.0]},
}


class Run:
    """A run of the real workflow as a group of processes that a test can stop or kill."""

    def __init__(self, root: Path, folder: Path, config: dict | None, targets=(), **environment):
        self.folder, self.environment = folder, {**os.environ, **environment}
        self.command = [sys.executable, "-m", "snakemake", *targets, "--cores", "2"]
        self.command += ["--snakefile", str(root / "Snakefile"), "--directory", str(folder)]
        folder.mkdir(exist_ok=True)
        if config is not None:
            (folder / "my.yaml").write_text(yaml.safe_dump(config))
            self.command += ["--configfile", str(folder / "my.yaml")]

    def start(self) -> None:
        """Begin a run whose output goes to a file."""
        self.output = self.folder / "terminal.txt"
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(
                self.command, stdout=file, stderr=file, start_new_session=True, env=self.environment
            )

    def finish(self) -> str:
        """Run to the end, and return what was printed."""
        self.start()
        status = self.process.wait(timeout=3000)
        text = self.output.read_text()
        assert status == 0, text[-5000:]
        return text

    def refused(self) -> str:
        """Return the last line of a run that does not begin."""
        done = subprocess.run(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode != 0
        assert "Directory cannot be locked" in done.stdout, done.stdout[-3000:]
        return done.stdout.splitlines()[-1]

    @property
    def n_done(self) -> int:
        """How many jobs have ended."""
        return len(re.findall(r"^\[ *\d+/\d+\] ", self.output.read_text(), re.M))

    @property
    def n_left(self) -> int:
        """How many jobs are left to do."""
        total = re.search(r"^(\d+) jobs? to run$", self.output.read_text(), re.M)
        return int(total[1]) - self.n_done if total else 0

    def wait_for(self, condition) -> bool:
        """Wait until a condition holds; False where the run ends before."""
        while not condition():
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def has_locked(self) -> bool:
        """Say whether the run has locked its folder and told who holds it."""
        return any((self.folder / ".snakemake/locks").glob("*.lock")) and bool(self.n_left)

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the run."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End all processes of the run at once."""
        group = [item for item in psutil.process_iter() if in_group(item, self.process.pid)]
        self.signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(group, timeout=60)


def in_group(process: psutil.Process, group: int) -> bool:
    """Say whether a process belongs to a group."""
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


def bits(folder: Path) -> dict[str, str]:
    """Return the hash of every result, but for what tells times: logs, costs, what holds them."""
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        place = path.relative_to(folder).as_posix()
        if path.is_dir() or "/logs/" in place or path.name.endswith(".cost.json"):
            continue
        if path.name in ("ro-crate-metadata.json", "comparison.png"):
            found[place] = "there"
        elif path.name in ("comparison.tsv", "summary.tsv"):
            lines = path.read_text().splitlines()
            kept = [line for line in lines if "_seconds" not in line and "memory_mb" not in line]
            found[place] = "\n".join(kept)
        elif path.name == "report.html":
            found[place] = re.sub(
                r'<h3 id="cost-.*?(?=<h3)|<section id="provenance.*?</section>|'
                r'alt="All latents compared|<img src="[^"]+" alt="All latents compared',
                "",
                path.read_text(),
                flags=re.S,
            )
        else:
            found[place] = files.sha256(path)
    return found


@pytest.mark.chaos
def test_case_57_a_run_killed_at_random_moments_ends_with_the_bits_of_a_clean_one(root, tmp_path):
    config = None if PROOFS else TINY
    clean = Run(root, tmp_path / "clean", config)
    clean.finish()
    runs, random = [Run(root, tmp_path / "killed", config)], np.random.default_rng(57)
    left, moments = clean.n_done, []
    while len(moments) < KILLS:
        if not (died := kill_at_random(runs[-1], left / (KILLS - len(moments)), random)):
            # It ended before its moment came: the next run begins anew.
            runs.append(Run(root, tmp_path / f"killed{len(runs)}", config))
        left = runs[-1].n_left if died else clean.n_done
        moments += [left] if died else []
        assert len(runs) < 4
    print(f"killed {len(moments)} times, with {moments} of {clean.n_done} jobs left")
    there = bits(clean.folder)
    for run in runs:
        run.finish()
        here = bits(run.folder)
        assert here.keys() == there.keys()
        assert [place for place in here if here[place] != there[place]] == []


def kill_at_random(run: Run, most: float, random) -> bool:
    """Start a run and kill it after up to `most` jobs and a moment; say whether it was not over."""
    run.start()
    n_jobs = int(random.uniform(0, most))
    if not run.wait_for(lambda: run.n_left and run.n_done >= n_jobs):
        return False
    time.sleep(random.uniform(0, min(2, most)))
    if run.process.poll() is not None:
        return False
    run.kill()
    if any((run.folder / ".snakemake/locks").glob("*.lock")):
        unlock = subprocess.run([*run.command, "--unlock"], capture_output=True, text=True)
        assert unlock.returncode == 0, unlock.stdout + unlock.stderr
    return True


def test_case_57_a_killed_run_says_the_one_command_that_goes_on(root, tmp_path):
    run = Run(root, tmp_path, TINY, ["results/toy/data/counts.h5ad"])
    run.start()
    assert run.wait_for(run.has_locked)
    run.kill()
    line = run.refused()
    found = re.fullmatch(r"ERROR E440 \S+: another run was killed .* Fix: (.+ && .+)", line)
    assert found, line
    assert shlex.split(found[1]).count("--unlock") == 1
    done = subprocess.run(found[1], shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "results/toy/data/counts.h5ad").exists()


def test_case_61_the_second_of_two_runs_at_once_is_refused_and_the_first_goes_on(root, tmp_path):
    first = Run(root, tmp_path, TINY, ["results/toy/data/counts.h5ad"])
    second = Run(root, tmp_path, None, [])
    second.command = first.command
    first.start()
    assert first.wait_for(first.has_locked)
    first.signal(signal.SIGSTOP)
    try:
        line = second.refused()
        dry = subprocess.run([*first.command, "-n"], capture_output=True, text=True)
    finally:
        first.signal(signal.SIGCONT)
    assert re.search(rf"ERROR E441 .*process {first.process.pid}, .* Fix: wait until it", line)
    assert "--unlock" not in line
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "ERROR" not in dry.stdout + dry.stderr
    assert first.process.wait(timeout=600) == 0, first.output.read_text()[-3000:]


PLACES = [
    {"LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
    {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/Lima", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "4"},
]
TARGETS = [
    *("results/toy/latent/scvi/seed0.h5ad", "results/toy/latent/harmony/seed0.h5ad"),
    *("results/toy/cells/scvi/seed0/clusters.tsv.gz", "results/toy/figures/umap_scvi.png"),
]


def test_case_64_hash_seed_time_zone_locale_and_cores_leave_every_bit_as_it_is(root, tmp_path):
    found = []
    for number, place in enumerate(PLACES):
        run = Run(root, tmp_path / str(number), TINY, TARGETS, **place)
        run.command[run.command.index("--cores") + 1] = str(1 + 3 * number)
        run.finish()
        found.append(bits(run.folder))
    assert set(TARGETS) <= found[0].keys()
    assert found[0] == found[1]


def test_case_64_more_threads_train_nearly_the_same_latent_and_too_many_are_refused(root, tmp_path):
    latents, n_cpus = [], len(os.sched_getaffinity(0))
    target = "results/toy/latent/scvi/seed0.h5ad"
    for threads in (1, 2, 4):
        config = {**TINY, "training": {**TINY["training"], "threads": threads}}
        run = Run(root, tmp_path, config, [target])
        if threads > n_cpus:
            run.start()
            assert run.process.wait(timeout=3000) != 0
            line = f"training.threads: {threads} threads are asked for, this job may use {n_cpus}"
            assert line in run.output.read_text()
        else:
            text = run.finish()
            latents.append(read_latent(tmp_path / target))
            assert ("select_genes" in text) == (threads == 1), "only the training has threads"
    for latent in latents[1:]:
        np.testing.assert_allclose(latent, latents[0], atol=0.05 * latents[0].std())


def read_latent(path) -> np.ndarray:
    """Return the latent of a file."""
    import anndata

    return np.asarray(anndata.read_h5ad(path).X)
