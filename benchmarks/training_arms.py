"""The two sides: a training here, and a training in scvi-tools, with the time at each epoch's end.

The clock starts when the data are in the form in which a side trains on them (`Cells` here, a
registered AnnData there), so building the model counts. Validation passes do not: scvi-tools makes
none, and the clock stands still during ours.
"""

import contextlib
import io
import logging
import time
import warnings
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import training_data
from parity_arms import HIDDEN, training_cells, warmup

from sclatent import job
from sclatent.models.dca import Dca, build_dca
from sclatent.models.exchange import from_scvi_tools
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training import loop
from sclatent.training.loader import Cells, Rows
from sclatent.training.plan import Training

WARMUP = 400
"""Epochs over which scvi-tools raises the KL weight, by default."""


class Problem(NamedTuple):
    """What both sides are given."""

    adata: object  # AnnData
    cells: Cells
    rows: Rows
    threads: int
    seed: int  # of the training


class Trained(NamedTuple):
    """A trained model in the form of this project, and the course of its training."""

    model: torch.nn.Module | None
    seconds: float  # in all
    marks: np.ndarray  # (epochs,), seconds at the end of each
    losses: np.ndarray  # (epochs,), -ELBO of the validation cells; none of scvi-tools

    @property
    def epoch_seconds(self) -> float:
        """Seconds of an epoch, the first one left out."""
        return (self.marks[-1] - self.marks[0]) / (len(self.marks) - 1)


class Clock:
    """Seconds of training so far, and at the end of each epoch; it stands still in validation."""

    def __init__(self):
        self.start, self.paused, self.marks = time.perf_counter(), 0.0, []

    def read(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self.start - self.paused

    def mark(self) -> None:
        """Note the end of an epoch."""
        self.marks.append(self.read())

    def around(self, evaluate):
        """Return a validation that ends an epoch and does not count."""

        def timed(*arguments, **options):
            self.mark()
            began = time.perf_counter()
            found = evaluate(*arguments, **options)
            self.paused += time.perf_counter() - began
            return found

        return timed


def train_ours(given: Problem, kind: str, settings: Scvi | Dca, plan: dict) -> Trained:
    """Train a model of this project as the settings of a training say."""
    job.set_threads(given.threads)
    plan, clock = Training(**plan), Clock()
    with quiet(), mock.patch.object(loop, "evaluate", clock.around(loop.evaluate)):
        model = build(given, kind, settings)
        rows = (given.rows.train, given.rows.validation)
        curve = loop.fit(model, given.cells, *rows, plan, given.seed)
        seconds = clock.read()
    if len(clock.marks) != len(curve):
        raise RuntimeError("training.loop.fit does not call loop.evaluate once an epoch any more")
    losses = np.array([row["validation_loss"] for row in curve])
    return Trained(model, seconds, np.array(clock.marks), losses)


def build(given: Problem, kind: str, settings: Scvi | Dca) -> torch.nn.Module:
    """Return an untrained model of a kind: scvi, scanvi or dca."""
    data = (given.cells, given.rows.train)
    if kind == "dca":
        return build_dca(*data, settings, given.seed)
    scvi = build_scvi(*data, settings, given.seed)
    if kind == "scvi":
        return scvi
    return build_scanvi(scvi, given.cells, Scanvi(**training_data.section("scanvi")), given.seed)


def train_theirs(
    given: Problem, kind: str, likelihood: str, minibatch: int, epochs: int | None, rate: float
) -> Trained:
    """Train SCVI or SCANVI of scvi-tools, with its defaults but for what is given.

    Without a number of epochs it takes as many as it finds right. Should these be too few for its
    KL weight to reach 1, the warm-up is shortened.
    """
    import scvi
    from scvi.model._utils import get_max_epochs_heuristic
    from scvi.train._callbacks import SubSampleLabels

    logging.disable(logging.WARNING)
    job.set_threads(given.threads)
    scvi.settings.seed = given.seed
    adata = training_cells(given)
    epochs = epochs or get_max_epochs_heuristic(adata.n_obs)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    clock = Clock()
    with quiet():
        model = scvi.model.SCVI(adata, gene_likelihood=likelihood, **training_data.MODEL)
        callbacks = [ticking(clock)]
        if kind == "scanvi":
            model = scvi.model.SCANVI.from_scvi_model(model, HIDDEN, labels_key="seen")
            callbacks.append(SubSampleLabels())  # left out by scvi-tools when others are given
        plan = {"lr": rate, "n_epochs_kl_warmup": min(WARMUP, warmup(epochs))}
        options = {"accelerator": "cpu", "devices": 1, "train_size": 1.0, "logger": False}
        options |= {"enable_progress_bar": False, "check_val_every_n_epoch": None}
        model.train(epochs, batch_size=minibatch, plan_kwargs=plan, callbacks=callbacks, **options)
        seconds = clock.read()
    ours = Scvi(likelihood=likelihood, **training_data.MODEL)
    brought = from_scvi_tools(model.module.state_dict(), ours, given.cells.sizes)
    return Trained(brought, seconds, np.array(clock.marks), np.array([]))


def ticking(clock: Clock):
    """Return a callback of Lightning that notes the end of each epoch."""
    from lightning.pytorch.callbacks import Callback

    class Ticking(Callback):
        """Note the end of each epoch."""

        def on_train_epoch_end(self, trainer, module) -> None:
            """Note it."""
            clock.mark()

    return Ticking()


@contextlib.contextmanager
def quiet():
    """Keep what a training prints and warns of to itself."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
