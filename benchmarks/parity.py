"""Train scVI and scANVI here and in scvi-tools on the same cells, and set the results side by side.

    make parity                    both datasets, three seeds; rewrites the tables of docs/parity.md
    make parity ARGS=--quick       a small and short version, whose numbers mean nothing

docs/parity.md says what is compared and how to read it. This needs the packages of .venv-peers, and
`scripts` on PYTHONPATH.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import parity_arms
import parity_data
import parity_denoising
import parity_tables
from publish import publish

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCLATENT_DATA", ROOT.parent / "shared" / "data"))
DATASETS = {"kang": 200, "pbmc_labelled": 60}
"""The datasets of benchmarks/real.yaml that take part, and the epochs of their trainings."""


class Plan(NamedTuple):
    """What a run consists of."""

    epochs: dict  # of each dataset
    seeds: list
    n_samples: int  # of the importance sampling
    small: parity_data.Small | None = None

    @property
    def jobs(self) -> list:
        """(function, dataset, seed) of each training, the longest first."""
        trainings = [
            (partial(parity_arms.train, arm=arm, epochs=epochs, n_samples=self.n_samples), *which)
            for dataset, epochs in reversed(self.epochs.items())
            for which in ((dataset, seed) for seed in self.seeds)
            for arm in parity_arms.ARMS
        ]
        denoisings = [
            (partial(parity_denoising.denoise_halves, epochs=epochs), dataset, self.seeds[0])
            for dataset, epochs in self.epochs.items()
        ]
        return trainings + denoisings


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the datasets")
    parser.add_argument("--out", type=Path, default=ROOT / "results/parity", help="for the results")
    parser.add_argument("--docs", type=Path, help="Markdown to rewrite the tables of, if no trial")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of every training, instead of each dataset's")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    parser.add_argument("--quick", action="store_true", help="600 cells, 4 epochs, one seed")
    given = parser.parse_args()
    for dataset in given.datasets:
        path = given.data / parity_data.entry_of(dataset)["source"]
        if not path.is_file():
            parser.error(f"{path} is not there (set --data or SCLATENT_DATA)")
    return given


def make_plan(given: argparse.Namespace) -> Plan:
    """Return what to run."""
    if given.quick:
        epochs = dict.fromkeys(given.datasets, given.epochs or 4)
        return Plan(epochs, given.seeds[:1], 10, parity_data.Small())
    epochs = {name: given.epochs or DATASETS[name] for name in given.datasets}
    return Plan(epochs, given.seeds, 100)


def run(plan: Plan, given: argparse.Namespace, folder: Path) -> list[dict]:
    """Prepare the data and run every job, some at a time; return a row per measured value."""
    rows, began = [], time.perf_counter()
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        prepare = partial(
            *(parity_data.prepare, given.data, folder), seeds=plan.seeds, small=plan.small
        )
        list(pool.map(prepare, plan.epochs))
        jobs = [
            pool.submit(function, folder / dataset, seed) for function, dataset, seed in plan.jobs
        ]
        for done, job in enumerate(as_completed(jobs), start=1):
            found = job.result()
            rows += found
            what = " ".join(str(found[0][name]) for name in ("dataset", "seed", "arm"))
            print(f"{time.perf_counter() - began:5.0f} s  {done}/{len(jobs)}  {what}", flush=True)
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def main() -> None:
    """Run the comparison and write it down."""
    given = arguments()
    plan = make_plan(given)
    conditions = parity_tables.conditions(plan.epochs, plan.seeds, given.jobs, plan.small)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(plan, given, Path(folder))
    conditions.append(f"{(time.perf_counter() - began) / 60:.1f} minutes in all")
    text = parity_tables.report(rows, conditions)
    publish(given.out, "parity", text, {"conditions": conditions, "values": rows})
    if given.docs and not plan.small:
        parity_tables.rewrite(given.docs, text)


if __name__ == "__main__":
    main()
