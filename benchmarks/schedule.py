"""Compare minibatches, learning rates and numbers of steps by the likelihood of held-out cells.

    make bench-schedule            all settings on three datasets, two splits

The settings of `training` in config/config.yaml were chosen by this table, on splits that no other
benchmark uses. A row has the mean over datasets of the difference to the first setting, in nats per
cell: of the log-likelihood by importance sampling, and of the ELBO. It needs `scripts` on
PYTHONPATH.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import parity_data
import torch

from sclatent.models.posterior import likelihood
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit
from sclatent.training.plan import Training

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCLATENT_DATA", ROOT.parent / "shared" / "data"))
DATASETS = ("pbmc_labelled", "kang", "mixology")
SEEDS = (10, 11)
N_SAMPLES, N_CELLS = 200, 500


class Setting(NamedTuple):
    """What is compared."""

    minibatch: int
    learning_rate: float
    n_steps: int
    max_epochs: int = 100


SETTINGS = [
    Setting(256, 4e-3, 3000),
    Setting(256, 6e-3, 2000),
    Setting(256, 8e-3, 2000),
    Setting(512, 8e-3, 1500),
    Setting(512, 12e-3, 1500),
    Setting(512, 12e-3, 1000),
    Setting(512, 12e-3, 1500, 150),
    Setting(1024, 8e-3, 1000),
    Setting(1024, 16e-3, 750, 150),
]


def measure(folder: Path, dataset: str, seed: int, setting: Setting) -> dict:
    """Train scVI with a setting and return how likely it finds held-out cells."""
    torch.set_num_threads(1)
    adata = parity_data.read(folder / dataset, seed)
    cells, rows = gather_cells(adata), split_rows(adata)
    plan = Training(min_epochs=1, **setting._asdict())
    model = build_scvi(cells, rows.train, Scvi(), seed)
    start = time.perf_counter()
    curve = fit(model, cells, rows.train, rows.validation, plan, seed)
    seconds = time.perf_counter() - start
    found = likelihood(model, cells, rows.heldout[:N_CELLS], N_SAMPLES, seed)
    return {
        **{"dataset": dataset, "seed": seed, **setting._asdict(), "epochs": len(curve)},
        **{"best": next(row["epoch"] for row in curve if row["best"]), "seconds": seconds},
        **{"log_likelihood": found.log_likelihood.mean(), "elbo": found.elbo.mean()},
    }


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean differences to the first setting, and the seconds."""
    keys, values = list(Setting._fields), ["log_likelihood", "elbo"]
    wide = table.set_index(["dataset", "seed", *keys])[values]
    first = table.set_index(["dataset", "seed"])
    first = first[(first[keys] == pd.Series(SETTINGS[0]._asdict())).all(axis=1)][values]
    difference = wide - first.reindex(wide.index.droplevel(keys)).to_numpy()
    means = difference.groupby(keys, sort=False).mean()
    per_dataset = difference["log_likelihood"].unstack("dataset").groupby(keys, sort=False).mean()
    seconds = table.groupby(keys, sort=False)["seconds"].mean()
    return means.join(per_dataset.add_prefix("log_likelihood, ")).join(seconds).reset_index()


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the datasets")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for dataset in given.datasets:
            parity_data.prepare(given.data, folder, dataset, given.seeds, None)
        jobs = [
            (folder, dataset, seed, setting)
            for dataset in given.datasets
            for seed in given.seeds
            for setting in SETTINGS
        ]
        with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
            for job in [pool.submit(measure, *job) for job in jobs]:
                rows.append(job.result())
                print(rows[-1], flush=True)
    print(summarise(pd.DataFrame(rows)).round(3).to_markdown(index=False))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
