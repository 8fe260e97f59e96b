"""Run the workflow from counts to report, and see where its time goes.

    make bench-run                                        the embedded default
    make bench-run ARGS="--overlay my.yaml"               your own data

Prints the wall time, the seconds of all jobs, and per rule how much of these went by before a job's
own work began: the start of Python and the imports.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import machine
import stages
from parity_tables import table_head
from publish import noted, publish

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numba", "numpy", "scipy", "anndata", "snakemake")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overlay", type=Path, nargs="*", default=[], help="config files")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/run")
    parser.add_argument("--scratch", type=Path, help="folder to run in and to keep")
    return parser.parse_args()


def measure(given: argparse.Namespace, folder: Path) -> dict:
    """Run the workflow in a folder and return what it took."""
    conditions = machine.describe(PACKAGES, cores=given.cores)
    run = stages.run_workflow(folder, None, (), given.cores, given.overlay)
    return {
        "conditions": conditions,
        "overlays": [path.name for path in given.overlay],
        "complete": run.complete,
        "seconds": run.seconds,
        "peak_mb": run.peak_mb,
        "stages": stages.by_rule(run.jobs),
    }


def report(found: dict) -> str:
    """Return the rules, the longest first, and the totals as Markdown."""
    what = ", ".join(found["overlays"]) or "the embedded default"
    lines = [f"{what}: {found['seconds']:.0f} s, {found['peak_mb']:.0f} MB at once", ""]
    lines += table_head(["rule", "jobs", "job-seconds", "of these starts and imports", "share"])
    total = {name: sum(row[name] for row in found["stages"]) for name in ("jobs", *stages.ADDED)}
    rows = sorted(found["stages"], key=lambda row: -row["seconds"] - row["start_seconds"])
    for row in [*rows, {"rule": "all", **total}]:
        starts, seconds = row["start_seconds"], row["start_seconds"] + row["seconds"]
        numbers = f"{seconds:.1f} | {starts:.1f} | {starts / max(seconds, 1e-9):.0%}"
        lines.append(f"| {row['rule']} | {row['jobs']} | {numbers} |")
    return noted(lines, [machine.sentence(found["conditions"])])


def main() -> None:
    """Run the workflow and write down what it took."""
    given = arguments()
    machine.warn_if_busy()
    if given.scratch:
        found = measure(given, given.scratch)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(given, Path(folder))
    publish(given.out, "run", report(found), found)
    if not found["complete"]:
        sys.exit("the run did not reach its end; what is above are the jobs that ended")


if __name__ == "__main__":
    main()
