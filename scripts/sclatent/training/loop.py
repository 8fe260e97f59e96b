"""The training loop of every model. It knows no biology.

A model has ``loss(minibatch, kl_weight, done) -> Loss``, where `done` is the share of the training
that is done. It may have an `opponent`: a module that learns at the same time from
``Loss.opponent``, and whose weights nothing else moves.

The loop keeps the weights of the epoch with the best validation loss once the weight of the KL term
is 1, or those of the last epoch where the plan says so. Either way it winds down when that loss,
smoothed, has not become better for some epochs: large steps find nothing more, and small ones take
what is left.
Where the loss is not finite it goes back a little, once, and on with a third of the learning rate.
With a checkpoint it can be stopped at any moment and goes on later.
"""

import contextlib
import gc
import math
from collections.abc import Iterator
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from sclatent.errors import InputError, problem
from sclatent.kernels.adam import Adam
from sclatent.kernels.operators import active
from sclatent.training.checkpoint import NO_CHECKPOINT, Checkpoint, NoCheckpoint
from sclatent.training.loader import Cells
from sclatent.training.order import draw_epoch, draw_labelled, slices
from sclatent.training.plan import Schedule, Training
from sclatent.training.run import Best, Progress, Run


class Loss(NamedTuple):
    """The loss of a minibatch, in nats per cell: tensors, or numbers with their methods."""

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
        self.reason = (
            f"{what} is not finite at {where}; {broken_weight(model)}; {some_cells(minibatch)}"
        )
        super().__init__(problem("E501", "training", self.reason, "lower training.learning_rate"))


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
    model,
    cells: Cells,
    train,
    validation,
    plan: Training,
    seed: int,
    labelled: str = "minibatch",
    checkpoint: Checkpoint | NoCheckpoint = NO_CHECKPOINT,
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
    checkpoint
        Where it goes on from, and what keeps it while it runs; nothing by default.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `kl_weight`, `learning_rate`, the mean losses in nats per cell,
        and `best`, true for the epoch whose weights were kept.

    Raises
    ------
    Diverged
        When a loss or gradient is not finite, and again with a third of the learning rate.
    SystemExit
        When a signal asked for the end; the checkpoint is written.
    """
    with checkpoint.watching(), plan.computing():
        run = start(model, cells, train, validation, plan, seed)
        checkpoint.resume(run)
        with captured(run, cells, train, labelled) as device:
            learn(run, device, cells, train, validation, seed, labelled, checkpoint)
    best = run.best
    if run.schedule.turn is not None:
        print(f"ended early: no better validation loss in {plan.patience} epochs")
    best.restore(model)
    print(f"kept epoch {best.epoch}: validation loss {best.loss:.2f} nats per cell")
    return [{**row, "best": row["epoch"] == best.epoch} for row in run.curve]


def learn(run: Run, device, cells, train, validation, seed, labelled, checkpoint) -> None:
    """Train to the end; `device` is what `captured` gives, the others are as for `fit`."""
    plan, progress = run.schedule.plan, Progress(run.schedule)
    seen = device.cells if device else cells
    while not run.over:
        try:
            if device:
                learned = run_captured(run, device)
            else:
                minibatches = gather(cells, train, plan, labelled, run.generator, run.done)
                with contextlib.closing(minibatches):
                    learned = run_epoch(run, minibatches, checkpoint)
            checked = evaluate(run.model, seen, validation, plan.minibatch, seed)
        except Diverged as error:
            run.go_back(error)
            if device:
                device.start_over()
            progress = Progress(run.schedule)
            continue
        run.end_epoch(describe_epoch(len(run.curve) + 1, run.schedule, learned, checked))
        progress.report(run.curve[-1])
        checkpoint.consider(run)
        if not gc.isenabled():
            gc.collect()


def captured(run: Run, cells: Cells, train, labelled: str):
    """Return a context that gives epochs on a GPU by the kernels, or None where that is not asked.

    Its trainings are stopped, and go on, between epochs.
    """
    plan = run.schedule.plan
    if cells.device != "cuda" or plan.precision not in ("bfloat16", "float32"):
        return contextlib.nullcontext()
    from sclatent.training.captured import on_device  # it knows the models, which know Loss

    return on_device(run.model, cells, train, plan, run.optimiser, labelled)


def run_captured(run: Run, device) -> Loss:
    """Take the steps of an epoch on a GPU; return the mean loss over the cells."""
    start = run.schedule.step
    *losses, broken, rows = device.run_epoch(run.schedule, int(run.generator.integers(2**63)))
    if broken is not None:
        run.schedule.step = start + broken
        loss = Loss(*map(torch.tensor, losses))
        raise Diverged(run.schedule.place, run.model, loss, device.cells.take(rows))
    return Loss(*losses)


def start(model, cells: Cells, train, validation, plan: Training, seed: int) -> Run:
    """Return a training before its first step; parameters as for `fit`."""
    n_epochs = plan.n_epochs(len(train), len(validation))
    schedule = Schedule(n_epochs, len(slices(len(train), plan.minibatch)), plan)
    generator = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    optimiser = plan.optimise(model)
    return Run(
        model, optimiser, schedule, Best(plan.keep, plan.smoothing), generator, cells.generators
    )


def gather(cells: Cells, rows, plan: Training, labelled: str, generator, skip: int = 0):
    """Yield the minibatches of one epoch, with cells drawn for their labels where asked.

    The first `skip` are drawn, so that the others are the same, but not gathered.
    """
    drawn = repeat(None)
    if labelled != "minibatch":
        own = np.random.default_rng(generator.integers(2**63, size=2))
        drawn = draw_beside(cells.label[rows], plan.minibatch, labelled == "balanced", own)
        drawn = islice(drawn, skip, None)
    minibatches = draw_epoch(cells, rows, plan.minibatch, generator, plan.pool_cells, skip)
    for minibatch, others in zip(minibatches, drawn, strict=False):
        if others is not None:
            minibatch = minibatch.replace(labelled=cells.take(rows[others]))
        yield minibatch


def draw_beside(label: np.ndarray, size: int, even: bool, generator) -> Iterator[np.ndarray]:
    """Yield the positions of as many labelled cells as each minibatch of an epoch has."""
    for part in slices(len(label), size):
        yield draw_labelled(label, part.stop - part.start, even, generator)


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


def run_epoch(run: Run, minibatches, checkpoint: Checkpoint | NoCheckpoint) -> Loss:
    """Take one step per minibatch; return the mean loss over the cells of the epoch."""
    model, optimiser, schedule, plan = run.model, run.optimiser, run.schedule, run.schedule.plan
    model.train()
    for minibatch in minibatches:
        optimiser.param_groups[0]["lr"] = schedule.learning_rate
        loss = model.loss(minibatch, schedule.kl_weight, schedule.done)
        values = [term.item() for term in loss[:3]]
        optimiser.zero_grad(set_to_none=True)
        if not all(map(math.isfinite, values)):
            raise Diverged(schedule.place, model, loss, minibatch)
        (loss.total if loss.opponent is None else loss.total + loss.opponent).backward()
        if not math.isfinite(clip(optimiser, plan)):
            raise Diverged(schedule.place, model, loss, minibatch)
        optimiser.step()
        schedule.advance()
        run.sums += np.multiply(values, len(minibatch))
        run.n_cells += len(minibatch)
        checkpoint.consider(run)
    return Loss(*(run.sums / run.n_cells))


def clip(optimiser, plan: Training) -> float:
    """Clip the gradients of each group by their norm or value, where the plan says so.

    Returns the sum of the norms before. Where it is not finite, the gradients stay as they are.
    """
    groups = [group["params"] for group in optimiser.param_groups]
    if kernels := active():
        kernels.finish()
    if isinstance(optimiser, Adam):
        norms = optimiser.norms()
    else:
        norms = [get_total_norm([w.grad for w in group if w.grad is not None]) for group in groups]
    total = float(sum(norms))
    if math.isfinite(total):
        for group, norm in zip(groups, norms, strict=True):
            if plan.clip_norm and norm > plan.clip_norm:
                clip_grads_with_norm_(group, plan.clip_norm, torch.as_tensor(norm))
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
