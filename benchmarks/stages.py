"""Run the real Snakefile on a file of counts, and watch what each job takes.

Snakemake runs a rule's script as a process of its own. From outside, the process and those that it
starts are looked at some times a second: nothing in the workflow has to be changed. This reads
/proc, so it needs Linux.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = re.compile(r"\S*/tmp[a-z0-9_]+\.(\w+)\.py")
"""The copy of a rule's script that Snakemake runs, with the name of the rule."""
INTERVAL = 0.25
"""Seconds between two looks, which cost 4 ms each."""
TICKS = os.sysconf("SC_CLK_TCK")


class Job(NamedTuple):
    """What one job took."""

    rule: str
    start: float  # seconds since the run began
    seconds: float
    cpu_seconds: float
    peak_mb: float  # the largest resident set, its child processes added


class Run(NamedTuple):
    """What a run of the workflow took."""

    seconds: float
    peak_mb: float  # the most that Snakemake and all its jobs had at once
    jobs: list
    complete: bool  # whether Snakemake ended well


class Process(NamedTuple):
    """A process, as /proc shows it."""

    parent: int
    cpu_seconds: float
    mb: float


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


def run_workflow(folder: Path, config: dict, targets=(), cores: int = 2, overlays=()) -> Run:
    """Run the workflow in a folder and return what its jobs took.

    Parameters
    ----------
    folder
        Gains config.yaml, results/ and snakemake.log.
    config
        As `configure` gives it.
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
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--cores", cores, "--directory", folder, *targets, "--configfile"]
    command += [folder / "config.yaml", *(Path(overlay).resolve() for overlay in overlays)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(folder / "snakemake.log", "w") as log:
        options = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment}
        running = subprocess.Popen([*map(str, command)], **options)
        run = watch(running)
    if running.returncode:
        lines = (folder / "snakemake.log").read_text().splitlines()
        print("\n".join([*lines[-25:], "ERROR the workflow failed"]), flush=True)
    return run


def watch(running: subprocess.Popen) -> Run:
    """Look at a run of Snakemake until it ends, and say when a job is done."""
    began, peak, alive, done = time.perf_counter(), 0.0, {}, []
    while True:
        ended = running.poll() is not None
        table, now = processes(), time.perf_counter() - began
        family = descendants(table, running.pid)
        peak = max(peak, sum(table[pid].mb for pid in family))
        found = {pid: rule for pid in family if (rule := rule_of(pid))}
        for pid in set(alive) - set(found):
            done.append(alive.pop(pid))
            job = done[-1]
            print(
                f"{now:6.0f} s  {job.rule}: {job.seconds:.1f} s, {job.peak_mb:.0f} MB", flush=True
            )
        for pid, rule in found.items():
            before = alive.get(pid, Job(rule, now - INTERVAL / 2, 0.0, 0.0, 0.0))
            parts = [table[part] for part in descendants(table, pid)]
            cpu = sum(part.cpu_seconds for part in parts)
            mb = max(sum(part.mb for part in parts), high_water(pid))
            alive[pid] = before._replace(
                seconds=now - before.start + INTERVAL / 2,
                cpu_seconds=max(before.cpu_seconds, cpu),
                peak_mb=max(before.peak_mb, mb),
            )
        if ended:
            jobs = sorted(done, key=lambda job: job.start)
            return Run(now, peak, jobs, running.returncode == 0)
        time.sleep(INTERVAL)


def processes() -> dict[int, Process]:
    """Return all processes by number; what ended meanwhile is left out."""
    table, page = {}, os.sysconf("SC_PAGE_SIZE") / 1e6
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            cpu = sum(map(int, fields[11:15])) / TICKS  # its own and that of ended children
            table[int(folder.name)] = Process(int(fields[1]), cpu, int(fields[21]) * page)
    return table


def descendants(table: dict, pid: int) -> list[int]:
    """Return a process and all that it has started, directly or not."""
    family = [pid] if pid in table else []
    for member in family:
        family += [child for child, process in table.items() if process.parent == member]
    return family


def rule_of(pid: int) -> str | None:
    """Return the rule whose script a process runs."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return None
    return next((match[1] for match in map(SCRIPT.fullmatch, words) if match), None)


def high_water(pid: int) -> float:
    """Return the largest resident set that a process has had, in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1.024e-3 for line in lines if "VmHWM" in line), 0.0)


def by_rule(jobs: list) -> list[dict]:
    """Return what the jobs of each rule took together, in the order in which the rules began."""
    table = {}
    for job in jobs:
        nothing = {"rule": job.rule, "jobs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0}
        row = table.setdefault(job.rule, nothing)
        row["jobs"] += 1
        row["seconds"] += job.seconds
        row["cpu_seconds"] += job.cpu_seconds
        row["peak_mb"] = max(row["peak_mb"], job.peak_mb)
    return list(table.values())
