"""The training loop of every model. It knows no biology.

A model has ``loss(minibatch, kl_weight) -> Loss``. The loop takes steps of Adam with a learning
rate that rises over the first steps and falls along a cosine, lets the weight of the KL term grow
to 1 over the first part of the steps, and keeps the weights of the epoch with the best validation
loss once that weight is 1.
"""

import copy
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.training.loader import Cells, shuffled, slices


class Loss(NamedTuple):
    """The loss of a minibatch, in nats per cell."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


@dataclass(frozen=True)
class Training:
    """Settings of the loop, as in the config's section `training`."""

    threads: int = 1
    minibatch: int = 256
    n_steps: int = 3000
    max_epochs: int = 100
    min_epochs: int = 10
    warmup: float = 0.25
    learning_rate: float = 4e-3
    patience: int = 30
    device: str = "cpu"

    def n_epochs(self, n_cells: int) -> int:
        """Return the number of epochs that take about `n_steps` steps, within the bounds."""
        steps = len(slices(n_cells, self.minibatch))
        return int(np.clip(math.ceil(self.n_steps / steps), self.min_epochs, self.max_epochs))


class Diverged(ArithmeticError):
    """The loss is not finite any more; nothing was kept."""


def fit(model, cells: Cells, train, validation, plan: Training, seed: int) -> list:
    """Train a model and leave it with the weights of its best epoch.

    Parameters
    ----------
    model
        A module with ``loss(minibatch, kl_weight)``.
    cells
        The counts and what goes with them.
    train, validation
        Rows of `cells` to learn from, and to decide by when to stop.
    plan
        Steps, learning rate, warm-up, patience.
    seed
        Seeds the order of the minibatches, dropout and sampling.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `kl_weight`, `learning_rate`, the mean losses in nats per cell,
        and `best`, true for the epoch whose weights were kept.

    Raises
    ------
    Diverged
        At the first loss that is not finite.
    """
    n_epochs = plan.n_epochs(len(train))
    schedule = Schedule(n_epochs * len(slices(len(train), plan.minibatch)), plan)
    optimiser = torch.optim.Adam(
        model.parameters(), lr=plan.learning_rate, eps=0.01, weight_decay=1e-6, fused=True
    )
    generator = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    progress, best, curve = Progress(n_epochs), Best(), []
    for epoch in range(1, n_epochs + 1):
        learned = run_epoch(model, cells, train, plan, optimiser, schedule, generator)
        checked = evaluate(model, cells, validation, plan.minibatch, seed)
        curve.append(describe_epoch(epoch, schedule, learned, checked))
        progress.report(curve[-1])
        if schedule.kl_weight >= 1:
            best.consider(epoch, checked.total, model)
        if best.weights and epoch - best.epoch >= plan.patience:
            print(f"stopped: no better validation loss in {plan.patience} epochs")
            break
    best.restore(model)
    print(f"kept epoch {best.epoch}: validation loss {best.loss:.2f} nats per cell")
    return [{**row, "best": row["epoch"] == best.epoch} for row in curve]


def describe_epoch(epoch: int, schedule, learned: Loss, checked: Loss) -> dict:
    """Return an epoch's row of the training curve; losses in nats per cell."""
    return {
        "epoch": epoch,
        "kl_weight": schedule.kl_weight,
        "learning_rate": schedule.learning_rate,
        "train_loss": learned.total,
        "validation_loss": checked.total,
        "train_reconstruction": learned.reconstruction,
        "validation_reconstruction": checked.reconstruction,
        "validation_kl": checked.kl,
    }


class Best:
    """The weights of the epoch with the lowest validation loss."""

    def __init__(self):
        self.epoch, self.loss, self.weights = 0, math.inf, None

    def consider(self, epoch: int, loss: float, model) -> None:
        """Keep the model's weights if its loss is the lowest so far."""
        if loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weights = copy.deepcopy(model.state_dict())

    def restore(self, model) -> None:
        """Put the kept weights back and leave the model ready for use."""
        model.load_state_dict(self.weights)
        model.eval()


class Schedule:
    """Learning rate and KL weight as functions of the share of the steps taken."""

    def __init__(self, n_steps: int, plan: Training):
        self.n_steps, self.plan, self.step = n_steps, plan, 0

    def advance(self) -> None:
        """Count one step."""
        self.step += 1

    @property
    def kl_weight(self) -> float:
        """The weight of the KL term: it grows linearly to 1 and stays there.

        It is 1 by the end of the last epoch, however few steps there are.
        """
        warmup = self.plan.warmup * self.n_steps
        return min(1.0, (self.step + 1) / warmup) if warmup else 1.0

    @property
    def learning_rate(self) -> float:
        """The step size: linear to its largest value in a twentieth of the steps, then a cosine."""
        rise = max(1, self.n_steps // 20)
        if self.step < rise:
            return self.plan.learning_rate * (self.step + 1) / rise
        share = (self.step - rise) / max(1, self.n_steps - rise)
        return self.plan.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def run_epoch(model, cells, rows, plan, optimiser, schedule, generator) -> Loss:
    """Take one step per minibatch; return the mean loss over the cells."""
    model.train()
    sums = np.zeros(3)
    for part in shuffled(rows, plan.minibatch, generator):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate
        loss = model.loss(cells.take(part), schedule.kl_weight)
        values = np.array([float(term.detach()) for term in loss])
        if not np.isfinite(values).all():
            raise Diverged(
                f"the loss is not finite at step {schedule.step + 1} of {schedule.n_steps} "
                f"(reconstruction {values[1]:.4g}, KL {values[2]:.4g}); "
                "lower training.learning_rate"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
        optimiser.step()
        schedule.advance()
        sums += values * len(part)
    return Loss(*(sums / len(rows)))


@torch.no_grad()
def evaluate(model, cells: Cells, rows, size: int, seed: int) -> Loss:
    """Return the mean loss of some cells at a KL weight of 1, with the same noise every time."""
    model.eval()
    sums = np.zeros(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in slices(len(rows), size):
            loss = model.loss(cells.take(rows[part]), 1.0)
            sums += np.array([float(term) for term in loss]) * len(rows[part])
    if not np.isfinite(sums).all():
        raise Diverged("the validation loss is not finite; lower training.learning_rate")
    return Loss(*(sums / len(rows)))


@torch.no_grad()
def predict(function, cells: Cells, size: int = 1024) -> np.ndarray:
    """Apply a function of minibatches to all cells in order; returns (n_cells, ...) float32."""
    parts = [
        function(cells.take(np.arange(part.start, part.stop))).cpu().numpy()
        for part in slices(cells.counts.shape[0], size)
    ]
    return np.concatenate(parts).astype(np.float32)


class Progress:
    """Print about twenty lines over a training: epoch, losses, time left."""

    def __init__(self, n_epochs: int):
        self.n_epochs, self.start = n_epochs, time.perf_counter()

    def report(self, row: dict) -> None:
        """Print one epoch, when it is its turn."""
        epoch = row["epoch"]
        if epoch % max(1, self.n_epochs // 20) and epoch not in (1, self.n_epochs):
            return
        left = (time.perf_counter() - self.start) / epoch * (self.n_epochs - epoch)
        print(
            f"epoch {epoch}/{self.n_epochs}  loss {row['train_loss']:.2f}  "
            f"validation {row['validation_loss']:.2f} nats/cell  "
            f"KL weight {row['kl_weight']:.2f}  {left:.0f} s left"
        )
