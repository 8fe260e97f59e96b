"""How fast minibatches come from counts on disk and in memory, and the memory that it takes.

Counts of 2000 genes, one of ten above zero, are simulated into a folder for temporary files. Every
number comes from a process of its own, which sees each cell once.

    python benchmarks/loading.py --cells 200000 500000 2000000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

from sclatent.data.compressed import BLOCK, Block
from sclatent.data.stored import StoredCounts, write_counts
from sclatent.training.loader import Cells
from sclatent.training.order import draw_epoch
from sclatent.training.plan import Training

N_GENES, DENSITY = 2000, 0.1


def simulate(n_cells: int, seed: int = 0) -> Iterator[Block]:
    """Yield random counts in blocks."""
    random = np.random.default_rng(seed)
    for start in range(0, n_cells, BLOCK):
        n_here = min(BLOCK, n_cells - start)
        above = random.random((n_here, N_GENES), dtype=np.float32) < DENSITY
        genes = np.nonzero(above)[1].astype(np.uint16)
        values = random.geometric(0.5, len(genes)).astype(np.uint16)
        yield Block(np.r_[0, np.cumsum(above.sum(1))], genes, values, N_GENES)


def measure(folder: Path, minibatch: int, in_memory: bool) -> dict:
    """Go through an epoch; return cells per second of time and of CPU time, and memory in MB."""
    before = resident()
    counts = StoredCounts(folder)
    if in_memory:
        counts = counts.read(np.arange(counts.shape[0])).counts
    rows = np.arange(counts.shape[0], dtype=np.int32)
    cells = Cells(counts, np.zeros(len(rows), np.int8), np.full(len(rows), -1, np.int8), ["one"])
    wall, cpu, total = time.perf_counter(), time.process_time(), 0
    generator = np.random.default_rng(0)
    for drawn in draw_epoch(cells, rows, minibatch, generator, Training().pool_cells):
        total += int(drawn.block.values.sum())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resident()
    assert total == counts.library_size.sum()
    return {"wall": len(rows) / wall, "cpu": len(rows) / cpu, "before": before, "peak": peak}


def resident() -> float:
    """Return the largest resident set so far, in MB."""
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def run_step(*given) -> str:
    """Run a step in a process of its own, and return what it prints."""
    command = [sys.executable, __file__, "--step", *map(str, given)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def compare(folder: Path, sizes: list[int], minibatches: list[int]) -> None:
    """Print a row per number of cells, minibatch, and place of the counts."""
    print("| cells | minibatch | counts | cells/s | cells per CPU s | MB | of these imports |")
    print("|---|---|---|---|---|---|---|")
    for n_cells in sizes:
        run_step("write", folder / str(n_cells), n_cells)
        for minibatch, place in product(minibatches, ("disk", "memory")):
            found = json.loads(run_step(place, folder / str(n_cells), minibatch))
            speeds = f"{found['wall']:,.0f} | {found['cpu']:,.0f}"
            memory = f"{found['peak']:.0f} | {found['before']:.0f}"
            print(f"| {n_cells:,} | {minibatch} | {place} | {speeds} | {memory} |", flush=True)


def take_step(step: str, folder: str, number: str) -> None:
    """Write counts of so many cells, or print what an epoch of such minibatches takes."""
    if step == "write":
        write_counts(folder, simulate(int(number)), N_GENES)
    else:
        print(json.dumps(measure(Path(folder), int(number), in_memory=step == "memory")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[200_000, 500_000, 2_000_000])
    parser.add_argument("--minibatch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--folder", help="on the disk to measure; a temporary one by default")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        take_step(*given.step)
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            compare(Path(folder), given.cells, given.minibatch)
