"""Time the training here beside that of scvi-tools, on the same cells and with the same threads.

    make bench-training                         everything, three repeats: some hours
    make bench-training ARGS=--quick            a small version, whose numbers mean nothing
    make bench-training ARGS="--parts nb zinb"  some parts only
    make bench-training ARGS=--resume           go on where a run was cut off

benchmarks/README.md says what the parts are. Both sides take turns within one process. Each part's
numbers are written when it is done. This needs the packages of .venv-peers, and `scripts` on
PYTHONPATH.
"""

import argparse
import tempfile
import time
from pathlib import Path

import machine
import parity
import parity_data
import training_data
from publish import TRIAL, noted, publish
from training_arms import Problem
from training_parts import PARTS, Effort, measure
from training_tables import table

from sclatent import files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("scvi-tools", "torch", "lightning", "numba", "numpy", "scipy", "anndata")
QUICK = Effort(our_epochs=3, their_epochs=1, epochs=8, n_samples=10, gemm_seconds=0.1)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    names = training_data.DATASETS
    parser.add_argument("--datasets", nargs="+", choices=names, default=list(names))
    parser.add_argument("--repeats", type=int, help="3; with --quick 1")
    parser.add_argument("--threads", type=int, default=2, help="of both sides")
    parser.add_argument(
        "--epochs", type=int, help="of scvi-tools up to its final -ELBO, instead of its own choice"
    )
    parser.add_argument("--quick", action="store_true", help="2,000 cells x 500 genes, few epochs")
    parser.add_argument("--resume", action="store_true", help="keep what has been measured")
    parser.add_argument("--data", type=Path, default=parity.DATA, help="folder with pbmc_labelled")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/training")
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else 3)
    for dataset in set(given.datasets) - {"simulated"}:
        path = given.data / parity_data.entry_of(dataset)["source"]
        if not path.is_file():
            parser.error(f"{path} is not there (set --data or SCLATENT_DATA, or leave it out)")
    return given


def run(given: argparse.Namespace, folder: Path) -> list[dict]:
    """Prepare the data, and measure every piece that is not there yet."""
    effort = QUICK if given.quick else Effort()
    effort = effort._replace(epochs=given.epochs or effort.epochs)
    asked = {"effort": effort._asdict(), "quick": given.quick, "threads": given.threads}
    data, small = {}, training_data.SMALL if given.quick else None
    for dataset in given.datasets:
        training_data.prepare(dataset, given.data, folder, small)
        data[dataset] = training_data.read(folder / dataset)
    wanted = [(r, d, p) for r in range(given.repeats) for d in given.datasets for p in given.parts]
    pieces, began = [], time.perf_counter()
    for done, (repeat, dataset, part) in enumerate(wanted, start=1):
        path = given.out / "pieces" / f"{dataset}.{part}.{repeat}.json"
        name = {"dataset": dataset, "part": part, "repeat": repeat}
        piece = kept(path, asked) if given.resume else None
        if piece is None:
            conditions = machine.describe(PACKAGES, threads=given.threads)
            problem = Problem(*data[dataset], given.threads, seed=repeat)
            values = measure(part, problem, effort, ours_first=repeat % 2 == 0)
            piece = {**name, "asked": asked, "conditions": conditions, "values": values}
            files.write_json(path, piece)
        pieces.append(piece)
        say(time.perf_counter() - began, f"{done}/{len(wanted)}", piece)
    return pieces


def kept(path: Path, asked: dict) -> dict | None:
    """Return a piece that was measured before, if it was asked for in the same way."""
    piece = files.read_json(path) if path.is_file() else None
    return piece if piece and piece["asked"] == asked else None


def say(seconds: float, place: str, piece: dict) -> None:
    """Print a line of progress."""
    values = piece["values"]
    sides = [f"{side} {values[side]:,.1f}" for side in ("ours", "theirs") if values.get(side)]
    what = f"{piece['dataset']} {piece['part']}, repeat {piece['repeat'] + 1}"
    print(f"{seconds:6.0f} s  {place}  {what}: {', '.join(sides)}", flush=True)


def main() -> None:
    """Run the benchmark and write it down."""
    given = arguments()
    machine.warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        pieces = run(given, Path(folder))
    conditions = pieces[0]["conditions"]
    notes = [
        f"repeats: {given.repeats}, medians; threads of each side: {given.threads}",
        machine.sentence(conditions),
    ]
    if given.quick:
        notes.append(TRIAL)
    content = {"conditions": conditions, "pieces": pieces}
    publish(given.out, "training", noted(table(pieces), notes), content)


if __name__ == "__main__":
    main()
