"""A training under way: all that changes from step to step, in one place, so that it can go on.

A state is a tree of dicts and lists whose leaves are tensors or JSON values. Put back, it makes the
training go on to the last bit as if nothing had happened.
"""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sclatent.training.plan import Schedule

STEPS_BETWEEN = 200  # two good states; copying one takes about as long as a step


@dataclass
class Run:
    """A model and all that goes with its training.

    Attributes
    ----------
    model, optimiser, schedule, best
        What is trained, how, and what is kept.
    generator
        Draws the order of the cells; torch's own generators draw the rest.
    devices
        CUDA devices that draw random numbers.
    curve
        A row per epoch that is over.
    sums, n_cells
        Losses of the epoch under way, summed over its cells so far.
    good
        The state to go back to where the loss is not finite; None once that has happened. When it
        is taken depends on the steps and never on the clock: equal runs go back to equal states.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    best: "Best"
    generator: np.random.Generator
    devices: list = field(default_factory=list)

    def __post_init__(self):
        self.curve = []
        self.start_epoch()
        self.good = self.state()

    def start_epoch(self) -> None:
        """Begin an epoch: its order of cells can be drawn again from `order`."""
        self.sums, self.n_cells = np.zeros(3), 0
        self.order = self.generator.bit_generator.state

    @property
    def done(self) -> int:
        """Minibatches of the epoch under way that were learnt from."""
        return self.schedule.step - len(self.curve) * self.schedule.steps_per_epoch

    @property
    def over(self) -> bool:
        """Whether no epoch is left."""
        return len(self.curve) * self.schedule.steps_per_epoch >= self.schedule.n_steps

    def end_epoch(self, row: dict) -> None:
        """Close an epoch with its row of the curve, and decide what to keep."""
        loss, settled = row["validation_loss"], self.schedule.last_kl_weight >= 1
        self.curve.append(row)
        self.schedule.consider(loss)
        self.best.consider(row["epoch"], loss, self.model, settled)
        if self.best.waited >= self.schedule.plan.patience:
            self.schedule.wind_down()
        self.start_epoch()
        if self.good and self.schedule.step >= self.good["schedule"]["step"] + STEPS_BETWEEN:
            self.good = self.state()

    def go_back(self, error) -> None:
        """Go back to the last good state, and on with smaller steps; raise the second time.

        Parameters
        ----------
        error
            A `Diverged`.
        """
        if self.good is None:
            raise error
        self.restore(self.good)
        self.good = None
        self.schedule.reduction = 1 / 3
        for group in self.optimiser.param_groups:
            group["lr"] /= 3
        place = self.schedule.place
        print(f"WARNING {error.reason}; back to {place}, with a third of the learning rate")

    def state(self) -> dict:
        """Return all that changes, copied."""
        return {
            "model": copied(self.model.state_dict()),
            "optimiser": copied(self.optimiser.state_dict()),
            "schedule": self.schedule.state(),
            "best": dict(vars(self.best)),
            "order": self.order,
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device) for device in self.devices],
            "curve": list(self.curve),
            "sums": self.sums.tolist(),
            "n_cells": self.n_cells,
        }

    def restore(self, state: dict) -> None:
        """Put back what `state` returned."""
        self.model.load_state_dict(state["model"])
        # torch goes on with the tensors that it is given
        self.optimiser.load_state_dict(copied(state["optimiser"]))
        vars(self.schedule).update(state["schedule"])
        vars(self.best).update(state["best"])
        self.order = self.generator.bit_generator.state = state["order"]
        torch.set_rng_state(state["torch"])
        for device, random in zip(self.devices, state["cuda"], strict=True):
            torch.cuda.set_rng_state(random, device)
        self.curve, self.n_cells = list(state["curve"]), state["n_cells"]
        self.sums = np.array(state["sums"])


def copied(tree):
    """Return a state with all of its tensors copied."""
    if isinstance(tree, Tensor):
        return tree.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list | tuple) else tree


class Best:
    """The weights of the epoch with the lowest validation loss, or of the last one.

    `waited` counts the epochs since the lowest smoothed loss: `smoothing` times that of the epoch
    before and the rest times the loss, which large steps make go up and down. The epochs of the
    warm-up do not count. `weights` is None while the model itself holds those to keep.
    """

    def __init__(self, keep: str = "best", smoothing: float = 0.0):
        self.keep, self.epoch, self.loss, self.weights = keep, 0, math.inf, None
        self.smoothing, self.smooth, self.lowest_smooth = smoothing, None, math.inf
        self.lowest, self.waited = math.inf, 0

    def consider(self, epoch: int, loss: float, model, settled: bool) -> None:
        """Keep the model's weights if its loss is the lowest so far, or the last is wanted.

        `settled` says that the warm-up is over. Until then the last are kept, and no loss counts.
        """
        better = settled and loss < self.lowest
        if better:
            self.lowest = loss
        if settled:
            self.wait(loss)
        if better or not settled or self.keep == "last":
            self.epoch, self.loss = epoch, loss
        if better and self.keep == "best":
            self.weights = copied(model.state_dict())

    def wait(self, loss: float) -> None:
        """Count the epochs since the lowest smoothed loss."""
        before = loss if self.smooth is None else self.smooth
        self.smooth = self.smoothing * before + (1 - self.smoothing) * loss
        if self.smooth < self.lowest_smooth:
            self.lowest_smooth, self.waited = self.smooth, 0
        else:
            self.waited += 1

    def restore(self, model) -> None:
        """Put the kept weights back and leave the model ready for use."""
        if self.weights is not None:
            model.load_state_dict(self.weights)
        model.eval()


class Progress:
    """Print about twenty lines over a training: epoch, losses, time left."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.first, self.start = schedule, schedule.step, time.perf_counter()

    def report(self, row: dict) -> None:
        """Print one epoch, when it is its turn."""
        epoch, step, n_steps = row["epoch"], self.schedule.step, self.schedule.n_steps
        n_epochs = n_steps // self.schedule.steps_per_epoch
        if epoch % max(1, n_epochs // 20) and epoch not in (1, n_epochs):
            return
        seconds = (time.perf_counter() - self.start) / max(1, step - self.first)
        print(
            f"epoch {epoch}/{n_epochs}  loss {row['train_loss']:.2f}  "
            f"validation {row['validation_loss']:.2f} nats/cell  "
            f"KL weight {row['kl_weight']:.2f}  {seconds * (n_steps - step):.0f} s left"
        )
