"""The training loop of every model. It knows no biology.

A model has ``loss(minibatch, kl_weight, done) -> Loss``, where `done` is the share of the training
that is done. It may have an `opponent`: a module that learns at the same time from
``Loss.opponent``, and whose weights nothing else moves.

The loop keeps the weights of the epoch with the best validation loss once the weight of the KL term
is 1, or those of the last epoch where the plan says so. Either way it stops when that loss has not
become better for some epochs.
"""

import copy
import math
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from sclatent.errors import InputError
from sclatent.training.loader import Cells, draw_epoch, draw_labelled, slices
from sclatent.training.plan import Schedule, Training


class Loss(NamedTuple):
    """The loss of a minibatch, in nats per cell."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    opponent: Tensor | None = None


class Diverged(InputError):
    """The loss or its gradient is not finite any more; nothing was kept.

    Parameters
    ----------
    where
        Epoch and step.
    model, loss, minibatch
        What broke: the message names the terms of the loss and the first weight that are not
        finite, and the first cells.
    """

    def __init__(self, where: str, model, loss: Loss, minibatch):
        names = ("total", "reconstruction", "KL", "opponent")
        terms = {n: float(t.detach()) for n, t in zip(names, loss, strict=True) if t is not None}
        broken = [f"{name} {value:.4g}" for name, value in terms.items() if not np.isfinite(value)]
        what = f"the loss ({', '.join(broken)})" if broken else "a gradient"
        super().__init__(
            f"{what} is not finite at {where}; {broken_weight(model)}; "
            f"{some_cells(minibatch)}; lower training.learning_rate"
        )


def broken_weight(model) -> str:
    """Say which weight of a model is the first that is not finite, or has such a gradient."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weight {name} is not finite"
        if weight.grad is not None and not torch.isfinite(weight.grad).all():
            return f"the gradient of {name} is not finite"
    return "all weights are finite"


def some_cells(minibatch) -> str:
    """Say how many cells a minibatch has and, where it knows, the rows of the first five."""
    text = f"{len(minibatch)} cells"
    rows = minibatch.rows.tolist()
    return f"{text}, in rows {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"


def fit(
    model, cells: Cells, train, validation, plan: Training, seed: int, labelled: str = "minibatch"
) -> list:
    """Train a model and leave it with the weights that the plan keeps.

    Parameters
    ----------
    model
        A module with ``loss(minibatch, kl_weight, done)``.
    cells
        The counts and what goes with them.
    train, validation
        Rows of `cells` to learn from, and to decide by when to stop.
    plan
        Steps, learning rate, warm-up, patience.
    seed
        Seeds the order of the minibatches, dropout and sampling.
    labelled
        Where labels are learnt from: the labelled cells of the ``minibatch``, a second minibatch
        of labelled cells, ``drawn`` at random, or one that is ``balanced`` over the labels.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `kl_weight`, `learning_rate`, the mean losses in nats per cell,
        and `best`, true for the epoch whose weights were kept.

    Raises
    ------
    Diverged
        At the first loss or gradient that is not finite.
    """
    n_epochs = plan.n_epochs(len(train), len(validation))
    schedule = Schedule(n_epochs, len(slices(len(train), plan.minibatch)), plan)
    optimiser = plan.optimise(model)
    generator = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    progress, best, curve = Progress(n_epochs), Best(plan.keep), []
    for epoch in range(1, n_epochs + 1):
        minibatches = gather(cells, train, plan, labelled, generator)
        learned = run_epoch(model, minibatches, plan, optimiser, schedule)
        checked = evaluate(model, cells, validation, plan.minibatch, seed)
        curve.append(describe_epoch(epoch, schedule, learned, checked))
        progress.report(curve[-1])
        schedule.consider(checked.total)
        best.consider(epoch, checked.total, model, settled=schedule.last_kl_weight >= 1)
        if best.waited >= plan.patience:
            print(f"stopped: no better validation loss in {plan.patience} epochs")
            break
    best.restore(model)
    print(f"kept epoch {best.epoch}: validation loss {best.loss:.2f} nats per cell")
    return [{**row, "best": row["epoch"] == best.epoch} for row in curve]


def gather(cells: Cells, rows, plan: Training, labelled: str, generator):
    """Yield the minibatches of one epoch, with cells drawn for their labels where asked."""
    for minibatch in draw_epoch(cells, rows, plan.minibatch, generator, plan.pool_cells):
        if labelled != "minibatch":
            even = labelled == "balanced"
            drawn = rows[draw_labelled(cells.label[rows], len(minibatch), even, generator)]
            minibatch = minibatch.replace(labelled=cells.take(drawn))
        yield minibatch


def describe_epoch(epoch: int, schedule, learned: Loss, checked: Loss) -> dict:
    """Return an epoch's row of the training curve; losses in nats per cell."""
    return {
        "epoch": epoch,
        "kl_weight": schedule.last_kl_weight,
        "learning_rate": schedule.last_learning_rate,
        "train_loss": learned.total,
        "validation_loss": checked.total,
        "train_reconstruction": learned.reconstruction,
        "validation_reconstruction": checked.reconstruction,
        "validation_kl": checked.kl,
    }


class Best:
    """The weights of the epoch with the lowest validation loss, or of the last one.

    `waited` counts the epochs since the lowest loss; those of the warm-up do not count.
    """

    def __init__(self, keep: str = "best"):
        self.keep, self.epoch, self.loss, self.weights = keep, 0, math.inf, None
        self.lowest, self.waited = math.inf, 0

    def consider(self, epoch: int, loss: float, model, settled: bool) -> None:
        """Keep the model's weights if its loss is the lowest so far, or the last is wanted.

        `settled` says that the warm-up is over. Until then the last are kept, and no loss counts.
        """
        better = settled and loss < self.lowest
        if better:
            self.lowest, self.waited = loss, 0
        elif settled:
            self.waited += 1
        if better or not settled or self.keep == "last":
            self.epoch, self.loss = epoch, loss
            self.weights = copy.deepcopy(model.state_dict())

    def restore(self, model) -> None:
        """Put the kept weights back and leave the model ready for use."""
        model.load_state_dict(self.weights)
        model.eval()


def run_epoch(model, minibatches, plan: Training, optimiser, schedule: Schedule) -> Loss:
    """Take one step per minibatch; return the mean loss over the cells."""
    model.train()
    sums, n_cells = np.zeros(3), 0
    for minibatch in minibatches:
        optimiser.param_groups[0]["lr"] = schedule.learning_rate
        loss = model.loss(minibatch, schedule.kl_weight, schedule.done)
        values = np.array([float(term.detach()) for term in loss[:3]])
        optimiser.zero_grad(set_to_none=True)
        if not np.isfinite(values).all():
            raise Diverged(schedule.place, model, loss, minibatch)
        (loss.total if loss.opponent is None else loss.total + loss.opponent).backward()
        if not math.isfinite(clip(optimiser, plan)):
            raise Diverged(schedule.place, model, loss, minibatch)
        optimiser.step()
        schedule.advance()
        sums += values * len(minibatch)
        n_cells += len(minibatch)
    return Loss(*(sums / n_cells))


def clip(optimiser, plan: Training) -> float:
    """Clip the gradients of each group by their norm or value, where the plan says so.

    Returns the sum of the norms before. Where it is not finite, the gradients stay as they are.
    """
    groups = [group["params"] for group in optimiser.param_groups]
    norms = [get_total_norm([w.grad for w in group if w.grad is not None]) for group in groups]
    total = float(sum(norms))
    if math.isfinite(total):
        for group, norm in zip(groups, norms, strict=True):
            if plan.clip_norm:
                clip_grads_with_norm_(group, plan.clip_norm, norm)
            if plan.clip_value:
                clip_grad_value_(group, plan.clip_value)
    return total


@torch.no_grad()
def evaluate(model, cells: Cells, rows, size: int, seed: int) -> Loss:
    """Return the mean loss of some cells at a KL weight of 1, with the same noise every time."""
    model.eval()
    sums = np.zeros(3)
    with torch.random.fork_rng(devices=cells.generators):
        torch.manual_seed(seed)
        for part in slices(len(rows), size):
            minibatch = cells.take(rows[part])
            loss = model.loss(minibatch, 1.0)
            values = np.array([float(term) for term in loss[:3]])
            if not np.isfinite(values).all():
                raise Diverged("the validation cells", model, loss, minibatch)
            sums += values * len(rows[part])
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
