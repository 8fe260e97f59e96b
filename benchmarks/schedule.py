"""Compare trainings: how likely held-out cells are, what the latent is worth, and CPU seconds.

    make bench-schedule        all settings of scVI, scANVI and DCA on six datasets, three splits

The settings of `training` in config/config.yaml were chosen by these tables, on splits that no
other benchmark uses. `before` is what the defaults were, `now` what they are; the others change a
few keys of these. scANVI always goes on from the scVI of `now`. It needs `scripts` on PYTHONPATH.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import parity_data
import torch
from parity_arms import Problem, accuracy

from sclatent.benchmark import metrics
from sclatent.benchmark.score import BenchmarkSettings, prepare
from sclatent.models.dca import Dca, build_dca
from sclatent.models.posterior import likelihood
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCLATENT_DATA", ROOT.parent / "shared" / "data"))
DATASETS = ("pbmc68k", "simulated", "mixology", "pbmc3k", "kang", "pbmc_labelled")
SEEDS = (10, 11, 12)
N_SAMPLES, N_CELLS = 100, 1000

AT_ONCE = {"smoothing": 0, "patience": 30, "cooldown": 0}
BEFORE = AT_ONCE | {"max_epochs": 100}
SETTINGS = {
    "scvi": {
        "before": BEFORE | {"minibatch": 256, "n_steps": 2000, "learning_rate": 0.006},
        "now": {},
        "no cooldown": AT_ONCE,
        "rate 0.006": AT_ONCE | {"learning_rate": 0.006},
        "rate 0.012": AT_ONCE | {"learning_rate": 0.012},
        "30 epochs, rate 0.006": AT_ONCE | {"max_epochs": 30, "learning_rate": 0.006},
        "40 epochs, rate 0.01": AT_ONCE | {"max_epochs": 40, "learning_rate": 0.01},
        "256 cells, rate 0.006": AT_ONCE | {"minibatch": 256, "learning_rate": 0.006},
        "64 cells, 30 epochs, rate 0.006": AT_ONCE
        | {"minibatch": 64, "max_epochs": 30, "learning_rate": 0.006},
    },
    "scanvi": {
        "before": BEFORE | {"minibatch": 256},
        "now": {},
        "5 epochs at least": {"min_epochs": 5},
        "200 steps": {"n_steps": 200, "min_epochs": 4},
    },
    "dca": {
        "before": BEFORE,
        "now": {},
        "no cooldown": AT_ONCE,
        "30 epochs": AT_ONCE | {"max_epochs": 30},
        "500 steps": BEFORE | {"n_steps": 500},
        "1,000 steps": BEFORE | {"n_steps": 1000},
        "128 cells, rate 0.006": AT_ONCE | {"minibatch": 128, "learning_rate": 0.006},
    },
}
"""Of each model, by name, the keys of its training that differ from the config."""
SCORES = {
    "-ELBO": "-ELBO of held-out cells ↓",
    "log_likelihood": "log-likelihood ↑",
    "validation": "validation loss ↓",
    "ilisi": "iLISI ↑",
    "knn": "kNN accuracy ↑",
    "nmi": "NMI ↑",
    "accuracy": "accuracy ↑",
    "seconds": "CPU s",
    "epochs": "epochs",
}

SCORES_OF_LATENTS = ("ilisi", "knn", "nmi", "accuracy")


def build(name: str, cells, train, below, config: dict, seed: int):
    """Return an untrained model; `below` is the scVI that a scANVI goes on from."""
    section = {key: value for key, value in config[name].items() if key != "training"}
    if name == "dca":
        return build_dca(cells, train, Dca(**section), seed)
    if name == "scanvi":
        return build_scanvi(below, cells, Scanvi(**section), seed)
    return build_scvi(cells, train, Scvi(**section), seed)


def measure(folder: Path, dataset: str, seed: int, name: str, setting: str) -> dict:
    """Train a model with a setting and return what it is worth."""
    torch.set_num_threads(1)
    config, adata = parity_data.configured(), parity_data.read(folder / dataset, seed)
    cells = gather_cells(adata, "cpu", config["scanvi"]["min_cells_per_label"])
    rows, below = split_rows(adata), None
    for model_name in ("scvi", "scanvi") if name == "scanvi" else (name,):
        changed = SETTINGS[name][setting] if model_name == name else {}
        plan = Training(**config["training"] | config[model_name]["training"] | changed)
        below = model = build(model_name, cells, rows.train, below, config, seed)
        start = time.process_time()
        curve = fit(model, cells, rows.train, rows.validation, plan, seed)
        seconds = time.process_time() - start
    found = likelihood(model, cells, rows.heldout[:N_CELLS], N_SAMPLES, seed)
    return {
        **{"model": name, "dataset": dataset, "setting": setting, "seed": seed},
        **{"-ELBO": -found.elbo.mean(), "log_likelihood": found.log_likelihood.mean()},
        "validation": next(row["validation_loss"] for row in curve if row["best"]),
        **latent_scores(predict(model.latent, cells), adata, seed),
        **{"accuracy": right_labels(model, cells, adata), "seconds": seconds, "epochs": len(curve)},
    }


def right_labels(model, cells, adata) -> float:
    """Return the share of test cells whose type a scANVI finds; NaN for other models."""
    if not hasattr(model, "probabilities"):
        return np.nan
    return accuracy(Problem(adata, cells, None, 0, 0, 0), predict(model.probabilities, cells))


def latent_scores(latent: np.ndarray, adata, seed: int) -> dict:
    """Return how well batches mix in a latent, and how well test labels are kept apart."""
    settings = BenchmarkSettings(**parity_data.configured()["benchmark"])
    judge = prepare(adata, settings, seed)
    latent, several = latent[judge.rows].astype(np.float64), len(np.unique(judge.batches)) > 1
    judged = (judge.labels, judge.batches, judge.judged, settings.n_neighbors)
    ilisi = metrics.ilisi(latent, judge.batches, settings.n_neighbors_lisi) if several else np.nan
    return {
        "ilisi": ilisi,
        "knn": metrics.knn_accuracy(latent, *judged),
        "nmi": metrics.nmi(latent[judge.judged], judge.labels[judge.judged], settings.n_inits),
    }


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over the seeds; of other settings than the first, those of the differences.

    ± is the standard deviation of the differences over the seeds.
    """
    keys, scores = ["model", "dataset", "setting"], list(SCORES)
    first = table[table["setting"] == "before"].set_index(["model", "dataset", "seed"])[scores]
    there = table.set_index([*keys, "seed"])[scores]
    change = there - first.reindex(there.index.droplevel("setting")).to_numpy()
    mean, sd = change.groupby(keys, sort=False).mean(), change.groupby(keys, sort=False).std()
    absolute = there.groupby(keys, sort=False).mean()
    lines = []
    for key in absolute.index:
        line = dict(zip(keys, key, strict=True))
        for score, title in SCORES.items():
            value, digits = absolute.loc[key, score], 3 if score in SCORES_OF_LATENTS else 1
            line[title] = f"{value:.{digits}f}" if np.isfinite(value) else ""
            if line[title] and key[2] != "before" and score not in ("seconds", "epochs"):
                spread = f" ± {sd.loc[key, score]:.{digits}f}"
                line[title] = f"{mean.loc[key, score]:+.{digits}f}{spread}"
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    """Measure all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the datasets")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--models", nargs="+", default=list(SETTINGS))
    parser.add_argument("--settings", nargs="+", help="by name; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for dataset in given.datasets:
            parity_data.prepare(given.data, folder, dataset, given.seeds, None)
        jobs = [
            (folder, dataset, seed, name, setting)
            for name in given.models
            for dataset in given.datasets
            for seed in given.seeds
            for setting in given.settings or SETTINGS[name]
            if setting in SETTINGS[name]
        ]
        with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
            for job in [pool.submit(measure, *job) for job in jobs]:
                rows.append(job.result())
                print(rows[-1], flush=True)
    print(summarise(pd.DataFrame(rows)).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
