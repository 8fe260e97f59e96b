"""The arms of the comparison: scVI, then scANVI on top of it, trained and measured.

All arms have the same architecture, cells, genes and splits, and one thread. Every model is
measured by the same functions: the weights of scvi-tools are brought over first.
"""

import contextlib
import io
import logging
import time
import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import parity_data
import torch

from sclatent.benchmark import metrics
from sclatent.benchmark.score import BenchmarkSettings, prepare
from sclatent.models.exchange import from_scvi_tools
from sclatent.models.posterior import likelihood
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells, Rows, gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

ARCHITECTURE = {"likelihood": "nb", "n_layers": 2, "n_latent": 30}
ARMS = ("scvi-tools", "compat", "defaults")
HIDDEN = "~hidden"
"""A hidden label for scvi-tools. It sorts last: elsewhere it would swap places with the last."""


class Problem(NamedTuple):
    """What every arm is given."""

    adata: object  # AnnData
    cells: Cells
    rows: Rows
    seed: int
    epochs: int  # of scVI
    epochs_scanvi: int


class Trained(NamedTuple):
    """A model of this project, and the seconds that its training took."""

    model: torch.nn.Module
    seconds: float


def train(folder, seed: int, arm: str, epochs: int, n_samples: int) -> list[dict]:
    """Train and measure one arm on one dataset and split.

    Parameters
    ----------
    folder
        As `parity_data.prepare` fills it; its name is that of the dataset.
    seed
        Of the split and of the training.
    arm
        One of `ARMS`.
    epochs
        Of scVI; those of scANVI follow by the rule of scvi-tools.
    n_samples
        Of the importance sampling.

    Returns
    -------
    list of dict
        A row per value: `dataset`, `model`, `metric`, `arm`, `seed`, `value`.
    """
    torch.set_num_threads(1)
    adata = parity_data.read(folder, seed)
    min_cells = parity_data.configured()["scanvi"]["min_cells_per_label"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells, rows = gather_cells(adata, "cpu", min_cells), split_rows(adata)
        epochs_scanvi = min(10, max(2, round(epochs / 3)))
        given = Problem(adata, cells, rows, seed, epochs, epochs_scanvi)
        pair = train_theirs(given) if arm == "scvi-tools" else train_ours(given, arm == "compat")
        values = measure(given, *pair, n_samples)
    return [
        {"dataset": folder.name, "model": model, "metric": metric, "arm": arm, "seed": seed}
        | {"value": float(value)}
        for (model, metric), value in values.items()
    ]


def train_ours(given: Problem, compat: bool) -> tuple[Trained, Trained]:
    """Train this project's scVI and scANVI, with the preset `scvi-tools` or its own defaults."""
    config = parity_data.configured(compat)
    section = {key: value for key, value in config["scvi"].items() if key != "training"}
    model = build_scvi(given.cells, given.rows.train, Scvi(**section | ARCHITECTURE), given.seed)
    scvi = timed_fit(model, given, config, "scvi", given.epochs)
    section = {key: value for key, value in config["scanvi"].items() if key != "training"}
    # scANVI moves the weights of the scVI that it is given, which is measured too.
    below = build_scvi(given.cells, given.rows.train, model.settings, given.seed)
    below.load_state_dict(model.state_dict())
    model = build_scanvi(below, given.cells, Scanvi(**section), given.seed)
    return scvi, timed_fit(model, given, config, "scanvi", given.epochs_scanvi)


def timed_fit(model, given: Problem, config: dict, section: str, epochs: int) -> Trained:
    """Train a model as its section of the config says, for so many epochs at most."""
    plan = Training(**config["training"] | config[section]["training"])
    bounds = {name: min(getattr(plan, name), epochs) for name in ("min_epochs", "max_epochs")}
    plan = replace(plan, **bounds)
    if plan.warmup_epochs:
        plan = replace(plan, warmup_epochs=warmup(epochs))
    labelled = config["scanvi"]["labelled"] if section == "scanvi" else "minibatch"
    began = time.perf_counter()
    fit(model, given.cells, given.rows.train, given.rows.validation, plan, given.seed, labelled)
    return Trained(model, time.perf_counter() - began)


def warmup(epochs: int) -> int:
    """Return the epochs of a warm-up that lets the last epoch have a KL weight of 1."""
    return max(1, epochs - 1)


def train_theirs(given: Problem) -> tuple[Trained, Trained]:
    """Train scVI and scANVI of scvi-tools, with its defaults but for architecture and epochs."""
    import scvi

    logging.disable(logging.WARNING)
    scvi.settings.seed = given.seed
    adata = training_cells(given)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    options = {"n_latent": ARCHITECTURE["n_latent"], "n_layers": ARCHITECTURE["n_layers"]}
    below = scvi.model.SCVI(adata, gene_likelihood=ARCHITECTURE["likelihood"], **options)
    first = timed_train(below, given, given.epochs)
    above = scvi.model.SCANVI.from_scvi_model(below, HIDDEN, labels_key="seen")
    assert list(above._label_mapping[: above.n_labels]) == given.cells.classes
    return first, timed_train(above, given, given.epochs_scanvi)


def training_cells(given: Problem):
    """Return the training cells, with the labels that may be seen in obs `seen`.

    scvi-tools cannot train on a minibatch of one cell, and by default leaves one or two cells that
    are left over out of training, as is done here.
    """
    rows, over = given.rows.train, len(given.rows.train) % 128
    adata = given.adata[rows[:-over] if over in (1, 2) else rows].copy()
    adata.X = adata.X.astype(np.float32)
    names = np.array([*given.cells.classes, HIDDEN])
    adata.obs["seen"] = names[given.cells.label[rows[: adata.n_obs]]]
    return adata


def timed_train(model, given: Problem, epochs: int) -> Trained:
    """Train a model of scvi-tools and bring its weights over."""
    settings = Scvi(**ARCHITECTURE, n_hidden=128)
    batches = model.adata_manager.get_state_registry("batch").categorical_mapping
    assert list(batches) == list(map(str, given.cells.batches))
    options = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "train_size": 1.0}
    began = time.perf_counter()
    model.train(epochs, plan_kwargs={"n_epochs_kl_warmup": warmup(epochs)}, **options)
    seconds = time.perf_counter() - began
    weights = model.module.state_dict()
    return Trained(from_scvi_tools(weights, settings, given.cells.sizes), seconds)


def measure(given: Problem, scvi: Trained, scanvi: Trained, n_samples: int) -> dict:
    """Return every value of two models, by model and metric."""
    found = likelihood(scvi.model, given.cells, given.rows.heldout, n_samples, given.seed)
    values = {
        ("scVI", "nelbo"): -found.elbo.mean(),
        ("scVI", "log_likelihood"): found.log_likelihood.mean(),
        ("scVI", "ess"): np.median(found.ess),
        ("scANVI", "accuracy"): accuracy(given, predict(scanvi.model.probabilities, given.cells)),
    }
    settings = BenchmarkSettings(**parity_data.configured()["benchmark"])
    judge = prepare(given.adata, settings, given.seed)
    for name, trained in (("scVI", scvi), ("scANVI", scanvi)):
        latent = predict(trained.model.latent, given.cells)[judge.rows].astype(np.float64)
        judged = (judge.labels, judge.batches, judge.judged, settings.n_neighbors)
        values[name, "knn_accuracy"] = metrics.knn_accuracy(latent, *judged)
        values[name, "ilisi"] = metrics.ilisi(latent, judge.batches, settings.n_neighbors_lisi)
        values[name, "seconds"] = trained.seconds
    return values


def accuracy(given: Problem, probabilities: np.ndarray) -> float:
    """Return the share of right predictions among the cells whose labels were hidden for testing.

    A type with too few training cells to be learnt counts as wrong.
    """
    test = (given.adata.obs["labels_split"] == "test").to_numpy()
    predicted = np.array(given.cells.classes)[probabilities.argmax(1)]
    return (predicted == given.adata.obs["cell_type"].to_numpy().astype(str))[test].mean()
