"""Run the workflow on more and more simulated cells, and see how time and memory grow.

    make bench-scaling                                10k, 30k, 100k and 300k cells x 5000 genes
    make bench-scaling ARGS="--sizes 1000 2000 4000"  a trial

One dataset, PCA and scVI, one seed, every rule up to the report. Each size is written down when it
is done; --resume keeps those that are there.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import machine
import numpy as np
import stages
from parity_tables import table_head
from publish import noted, publish
from simulated_file import write_simulated

from sclatent import files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numba", "numpy", "scipy", "anndata", "snakemake")
LINEAR = 1.1
"""The largest exponent that still counts as linear: short jobs cannot be timed better."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--detected", type=float, default=0.08, help="share of genes in a cell")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--overlay", type=Path, nargs="*", default=[], help="config files on top")
    parser.add_argument("--resume", action="store_true", help="keep the sizes that are measured")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/scaling")
    parser.add_argument("--scratch", type=Path, help="where to work; else a temporary folder")
    return parser.parse_args()


def measure(given: argparse.Namespace, n_cells: int, folder: Path) -> dict:
    """Simulate so many cells, run the workflow on them, and return what the rules took."""
    source = folder.resolve() / "simulated.h5ad"
    write_simulated(source, n_cells, given.genes, given.detected * given.genes, seed=0)
    print(f"{n_cells:,} cells", flush=True)
    conditions = machine.describe(PACKAGES, cores=given.cores)
    config = stages.configure(source, dataset={"cell_type": "cell_type"})
    run = stages.run_workflow(folder, config, (), given.cores, given.overlay)
    return {
        "cells": n_cells,
        "genes": given.genes,
        "conditions": conditions,
        "complete": run.complete,
        "seconds": run.seconds,
        "peak_mb": run.peak_mb,
        "stages": stages.by_rule(run.jobs),
    }


def exponent(sizes: list, values: list) -> float:
    """Return the slope of log values against log sizes: 1 is linear, NaN where there are too few.

    Time that does not depend on the cells, such as imports, makes it smaller.
    """
    if len(set(sizes)) < 2 or min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def rules_of(found: dict) -> dict[str, dict]:
    """Return the rows of a size by rule; ``all`` stands for the whole run."""
    whole = {"seconds": found["seconds"], "peak_mb": found["peak_mb"]}
    return {row["rule"]: row for row in found["stages"]} | {"all": whole}


def exponents(found: list[dict]) -> dict[str, dict]:
    """Return of each rule the exponents of time and memory, and that of time at the end.

    `last` is between the two largest sizes, where what is constant weighs least.
    """
    table, rows = {}, [(run["cells"], rules_of(run)) for run in found]
    for rule in rows[-1][1]:
        sizes = [size for size, rules in rows if rule in rules]
        seconds = [rules[rule]["seconds"] for _, rules in rows if rule in rules]
        peaks = [rules[rule]["peak_mb"] for _, rules in rows if rule in rules]
        table[rule] = {
            "seconds": exponent(sizes, seconds),
            "last": exponent(sizes[-2:], seconds[-2:]),
            "peak_mb": exponent(sizes, peaks),
        }
    return table


def report(found: list[dict]) -> str:
    """Return time and memory of every rule at every size, with the exponents, as Markdown."""
    head = ["stage: seconds / peak MB", *(f"{run['cells']:,}" for run in found)]
    lines = table_head([*head, "exponent of time", "of the last two", "of memory"])
    for rule, slopes in exponents(found).items():
        rows = [rules_of(run).get(rule) for run in found]
        cells = [f"{row['seconds']:.1f} / {row['peak_mb']:.0f}" if row else "" for row in rows]
        numbers = [f"{slopes[key]:.2f}" for key in ("seconds", "last", "peak_mb")]
        if slopes["last"] > LINEAR:
            numbers[1] = f"**{numbers[1]}**"
        lines.append(f"| {' | '.join([rule, *cells, *numbers])} |")
    bold = f"in bold what grows faster than the cells (exponent above {LINEAR})"
    return noted(lines, [bold, machine.sentence(found[0]["conditions"])])


def main() -> None:
    """Measure every size and write down how the stages grow."""
    given = arguments()
    machine.warn_if_busy()
    found = []
    for n_cells in sorted(given.sizes):
        path = given.out / "pieces" / f"{n_cells}.json"
        if not (given.resume and path.is_file() and files.read_json(path)["complete"]):
            folder = Path(tempfile.mkdtemp(dir=given.scratch))
            try:
                files.write_json(path, measure(given, n_cells, folder))
            finally:
                shutil.rmtree(folder)
        found.append(files.read_json(path))
        if not found[-1]["complete"]:
            sys.exit(f"the workflow failed with {n_cells:,} cells; nothing larger is tried")
    content = {"runs": found, "exponents": exponents(found)}
    publish(given.out, "scaling", report(found), content)


if __name__ == "__main__":
    main()
