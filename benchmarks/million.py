"""Send a million simulated cells through the whole chain, and measure it stage by stage.

    make bench-million                                  1,000,000 cells x 20,000 genes
    make bench-million ARGS="--cells 20000"             a trial

One dataset, PCA and scVI, Leiden, UMAP, export, on two cores. The counts are simulated first; that
is not part of the time.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import machine
import stages
from parity_tables import table_head
from publish import noted, publish
from simulated_file import write_simulated

from sclatent import files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numba", "numpy", "scipy", "anndata", "snakemake")
MILLION = 1_000_000
MINUTES, GIGABYTES = 35, 8
"""The targets for a million cells."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=MILLION)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--detected", type=float, default=0.05, help="share of genes in a cell")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--overlay", type=Path, nargs="*", default=[], help="config files on top")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/million")
    parser.add_argument(
        "--scratch", type=Path, help="folder to keep, where a run that was cut off goes on"
    )
    return parser.parse_args()


def measure(given: argparse.Namespace, folder: Path) -> dict:
    """Simulate the counts, run the chain, and return what it took."""
    name = f"simulated_{given.cells}x{given.genes}_{given.detected}_{given.seed}.h5ad"
    source = folder.resolve() / name
    began = time.perf_counter()
    if not source.is_file():
        write_simulated(source, given.cells, given.genes, given.detected * given.genes, given.seed)
    simulated = time.perf_counter() - began
    size = files.size(source.stat().st_size)
    print(f"simulated {given.cells:,} cells in {simulated:.0f} s, {size}", flush=True)
    conditions = machine.describe(PACKAGES, cores=given.cores)
    target = "results/counts/counts.h5ad"
    run = stages.run_workflow(
        folder, stages.configure(source), [target], given.cores, given.overlay
    )
    return {
        "conditions": conditions,
        "cells": given.cells,
        "genes": given.genes,
        "complete": run.complete,
        "seconds": run.seconds,
        "peak_mb": run.peak_mb,
        "stages": stages.by_rule(run.jobs),
        "jobs": [job._asdict() for job in run.jobs],
    }


def report(found: dict) -> str:
    """Return the stages and the totals as Markdown."""
    lines = [f"{found['cells']:,} cells × {found['genes']:,} genes", ""]
    lines += table_head(["stage", "jobs", "seconds", "CPU seconds", "peak MB"])
    for row in found["stages"]:
        numbers = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['peak_mb']:.0f}"
        lines.append(f"| {row['rule']} | {row['jobs']} | {numbers} |")
    minutes, gigabytes = found["seconds"] / 60, found["peak_mb"] / 1000
    lines += ["", *table_head(["whole chain", "", "target for a million cells", "met"])]
    rows = (("minutes", minutes, MINUTES), ("GB at once, all processes", gigabytes, GIGABYTES))
    for name, value, target in rows:
        met = "n/a" if found["cells"] < MILLION else "yes" if value <= target else "no"
        lines.append(f"| {name} | {value:.2f} | ≤ {target} | {met} |")
    return noted(lines, [machine.sentence(found["conditions"])])


def main() -> None:
    """Run the chain and write down what it took."""
    given = arguments()
    machine.warn_if_busy()
    if given.scratch:
        given.scratch.mkdir(parents=True, exist_ok=True)
        found = measure(given, given.scratch)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(given, Path(folder))
    publish(given.out, "million", report(found), found)
    if not found["complete"]:
        sys.exit("the chain did not reach its end; what is above are the stages that ended")


if __name__ == "__main__":
    main()
