"""Run the real Snakefile on a file of counts, and see what each job took.

Each job leaves a record beside its log. What all processes hold at once is looked at from outside,
some times a second, in /proc: this needs Linux.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
INTERVAL = 1.0
"""Seconds between two looks: what a large process holds takes milliseconds to add up."""
ADDED = ("start_seconds", "seconds", "cpu_seconds")
"""What adds up over the jobs of a rule."""


class Job(NamedTuple):
    """What one job took."""

    rule: str
    started: str  # ISO 8601
    start_seconds: float  # until its own work began: Python, imports, a place in the server's queue
    seconds: float  # of its own work
    cpu_seconds: float  # of its own work
    peak_mb: float  # the largest resident set, with the packages


class Run(NamedTuple):
    """What a run of the workflow took."""

    seconds: float
    peak_mb: float  # the most that Snakemake and all its jobs had at once, shared pages once
    jobs: list
    complete: bool  # whether Snakemake ended well


def configure(source: Path, **sections) -> dict:
    """Return a config of one dataset `counts`, with PCA and scVI, one seed, and UMAPs.

    The UMAPs are as few as the schema lets them be.

    Parameters
    ----------
    source
        The h5ad.
    sections
        What differs: sections of the config, or keys of the dataset under `dataset`.
    """
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    fewest = schema["properties"]["layout"]["properties"]["seeds"]["minItems"]
    dataset = {"source": str(source), "batch": "batch", **sections.pop("dataset", {})}
    return {
        "datasets": {"counts": dataset},
        "seeds": [0],
        "latents": ["pca", "scvi"],
        "layout": {"methods": ["umap"], "seeds": list(range(fewest))},
        **sections,
    }


def run_workflow(folder: Path, config: dict | None, targets=(), cores: int = 2, overlays=()) -> Run:
    """Run the workflow in a folder and return what its jobs took.

    Parameters
    ----------
    folder
        Gains config.yaml, results/ and snakemake.log.
    config
        As `configure` gives it; None for the default.
    targets
        Files to make; all by default.
    cores
        Jobs at a time.
    overlays
        Config files on top.
    """
    if not Path("/proc/self/stat").is_file():
        sys.exit("the jobs are watched through /proc, which only Linux has")
    folder.mkdir(parents=True, exist_ok=True)
    files = [Path(overlay).resolve() for overlay in overlays]
    if config is not None:
        files.insert(0, folder / "config.yaml")
        files[0].write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--cores", cores, "--directory", folder, *targets]
    command += ["--configfile", *files] if files else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(folder / "snakemake.log", "w") as log:
        options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment}
        running = subprocess.Popen([*map(str, command)], start_new_session=True, **options)
        try:
            run = watch(running, folder / "results")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)
    if running.returncode:
        lines = (folder / "snakemake.log").read_text().splitlines()
        print("\n".join([*lines[-25:], "ERROR the workflow failed"]), flush=True)
    return run


def watch(running: subprocess.Popen, results: Path) -> Run:
    """Look at a run of Snakemake until it ends, and say when a job is done."""
    began, peak = time.perf_counter(), 0.0
    there = set(records(results))
    done = {}
    while True:
        ended = running.poll() is not None
        now = time.perf_counter() - began
        peak = max(peak, sum(map(held, session(running.pid))))
        for path in records(results):
            if path not in there and path not in done:
                job = done[path] = job_of(json.loads(path.read_text()))
                what = f"{job.start_seconds:.1f} + {job.seconds:.1f} s, {job.peak_mb:.0f} MB"
                print(f"{now:6.0f} s  {job.rule}: {what}", flush=True)
        if ended:
            jobs = sorted(done.values(), key=lambda job: job.started)
            peak = max([peak, *(job.peak_mb for job in jobs)])  # which may lie between two looks
            return Run(now, peak, jobs, running.returncode == 0)
        time.sleep(INTERVAL)


def records(results: Path) -> list[Path]:
    """Return the records of the jobs that have ended."""
    found = [*results.glob("logs/**/*.json"), *results.glob("*/logs/**/*.json")]
    return [path for path in found if not path.name.startswith(".")]


def job_of(record: dict) -> Job:
    """Return what a job took, from its record."""
    cost, process = record["cost"], record["process"]
    own = cost["wall_seconds"], cost["cpu_seconds"], process["peak_memory_mb"]
    return Job(record["rule"], record["started"], process["start_seconds"], *own)


def session(leader: int) -> list[int]:
    """Return the processes that the leader of a session has started, and itself."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                found += [int(folder.name)] if int(fields[3]) == leader else []
    return found


def held(pid: int) -> float:
    """Return what a process holds, in MB: of a page that several share, its share."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1.024e-3 for line in lines if line.startswith("Pss:"))
    return 0.0


def by_rule(jobs: list) -> list[dict]:
    """Return what the jobs of each rule took together, in the order in which the rules began."""
    table = {}
    for job in jobs:
        nothing = dict.fromkeys(("jobs", *ADDED, "peak_mb"), 0)
        row = table.setdefault(job.rule, {"rule": job.rule, **nothing})
        row["jobs"] += 1
        for name in ADDED:
            row[name] += getattr(job, name)
        row["peak_mb"] = max(row["peak_mb"], job.peak_mb)
    return list(table.values())
