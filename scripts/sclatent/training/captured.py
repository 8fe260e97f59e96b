"""Epochs on the device: a step is captured in a CUDA graph once and replayed for each minibatch.

A graph has fixed shapes, so there is one for each size of minibatch: in an epoch that is the size
asked for and that of what remains at its end. The first steps of each size run by themselves, as
the capture wants it; they are steps of the training like all others.

Nothing in an epoch waits for the host. Row numbers are shuffled on the device; learning rate and
KL weight are put there once per epoch; losses are summed there. From the first step on whose loss
or gradient is not finite no weight changes, and the number of that step is known at the end of the
epoch. Random numbers come from torch's generator of the device, which graphs advance as other steps
do.

Without a GPU the same steps run by themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from sclatent.kernels.cuda.device import DeviceKernels
from sclatent.training.ends import fits, heavy_ends, standard_of
from sclatent.training.order import slices
from sclatent.training.resident import ResidentCells

N_WARM_UP = 3


class Epoch(NamedTuple):
    """The mean losses of an epoch in nats per cell, and its first step that was not finite."""

    total: float
    reconstruction: float
    kl: float
    broken: int | None
    rows: Tensor | None  # of the cells of that step, (B,)


@contextmanager
def on_device(
    model, cells, train, plan, optimiser, labelled: str = "minibatch"
) -> Iterator["DeviceTraining | None"]:
    """Give a training on the device where it can take this path, else None.

    Parameters are those of `DeviceTraining`, with `training.loader.Cells`. Inside the context the
    model takes minibatches of the training's `cells`, validation too.
    """
    if plan.optimiser != "adam" or not fits(model):
        print("NOTE this model trains in plain PyTorch on a GPU")
        yield None
        return
    dtype = getattr(torch, plan.precision)
    resident = ResidentCells(cells, standard_of(model), dtype)
    with heavy_ends(model, DeviceKernels(dtype)):
        yield DeviceTraining(model, resident, train, plan, optimiser, labelled)


class DeviceTraining:
    """Epochs of a model on resident cells.

    Parameters
    ----------
    model
        With ``loss(minibatch, kl_weight, done)``, on the device of the cells.
    cells
        All cells.
    train
        Rows to learn from.
    plan
        Minibatch and clipping.
    optimiser
        Fused Adam of the model's weights; its learning rates become tensors.
    labelled
        Where labels are learnt from, as for `training.loop.fit`.
    """

    def __init__(self, model, cells: ResidentCells, train, plan, optimiser, labelled="minibatch"):
        self.model, self.cells, self.plan, self.optimiser = model, cells, plan, optimiser
        self.capture = cells.device == "cuda"
        self.train = torch.as_tensor(np.asarray(train, dtype=np.int64), device=cells.device)
        self.generator = torch.Generator(cells.device)
        self.weights = label_weights(cells.label[self.train], labelled)
        self.settings = torch.zeros(3, device=cells.device)  # learning rate, KL weight, share done
        self.sums = torch.zeros(4, dtype=torch.float64, device=cells.device)
        self.sound = torch.ones((), device=cells.device)  # 0 from the first broken step on
        self.n_sound = torch.zeros((), device=cells.device)  # steps before it
        if self.capture:
            self.stream = torch.cuda.Stream()
        self.start_over()

    def start_over(self) -> None:
        """Forget the graphs: the optimiser has new tensors, or those of a state put back."""
        self.graphs, self.rows, self.n_taken = {}, {}, {}
        optimiser, device = self.optimiser, self.cells.device
        for group in optimiser.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)
            group["capturable"] = self.capture
        optimiser.param_groups[0]["lr"] = self.settings[0]
        optimiser.found_inf = torch.zeros((), device=device)  # with 1 a step changes nothing

    def run_epoch(self, schedule, seed: int) -> Epoch:
        """Take one step per minibatch.

        Parameters
        ----------
        schedule
            Learning rate, KL weight and share done of each step; advanced by as many.
        seed
            Seeds the order of the cells, and which are drawn for their labels.
        """
        self.generator.manual_seed(seed)
        n_cells, order = len(self.train), self.shuffle()
        parts = slices(n_cells, self.plan.minibatch)
        settings = []
        for _ in parts:
            settings.append((schedule.learning_rate, float(schedule.kl_weight), schedule.done))
            schedule.advance()
        settings = torch.tensor(settings, device=self.cells.device)
        self.sums.zero_()
        self.sound.fill_(1)
        self.n_sound.zero_()
        self.model.train()
        for number, part in enumerate(parts):
            self.settings.copy_(settings[number])
            self.take_step(order[:, part])
        losses, n_sound = (self.sums[:3] / n_cells).tolist(), int(self.n_sound)
        if n_sound == len(parts):
            return Epoch(*losses, None, None)
        return Epoch(*losses, n_sound, order[0, parts[n_sound]])

    def shuffle(self) -> Tensor:
        """Return an epoch's rows in random order, (1, n); with those drawn for labels (2, n)."""
        random = {"generator": self.generator, "device": self.cells.device}
        order = self.train[torch.randperm(len(self.train), **random)][None]
        if self.weights is None:
            return order
        n_cells = len(self.train)
        drawn = torch.multinomial(self.weights, n_cells, True, generator=self.generator)
        return torch.cat([order, self.train[drawn][None]])

    def take_step(self, rows: Tensor) -> None:
        """Take one step with some cells, (1, B) or (2, B), by a graph where there is one."""
        size = rows.shape[1]
        self.n_taken[size] = self.n_taken.get(size, 0) + 1
        if not self.capture:
            self.run(rows)
        elif self.n_taken[size] <= N_WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.run(rows)
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if size not in self.graphs:
                self.record(rows)
            self.rows[size].copy_(rows)
            self.graphs[size].replay()

    def record(self, rows: Tensor) -> None:
        """Capture the step for minibatches of the size of `rows`."""
        size = rows.shape[1]
        self.rows[size], self.graphs[size] = rows.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graphs[size], stream=self.stream):
            self.run(self.rows[size])

    def run(self, rows: Tensor) -> None:
        """Take one step; nothing here waits for the device."""
        minibatch, *labelled = (self.cells.take(part) for part in rows)
        if labelled:
            minibatch = minibatch.replace(labelled=labelled[0])
        loss = self.model.loss(minibatch, self.settings[1], self.settings[2])
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = self.clip()
        values = torch.stack([*(term.detach() for term in loss[:3]), norm])
        self.sums.add_(values, alpha=len(minibatch))
        self.sound.mul_(values.sum() * 0 == 0)  # infinities and NaN are no zero then
        self.n_sound.add_(self.sound)
        torch.sub(1, self.sound, out=self.optimiser.found_inf)
        self.optimiser.step()

    def clip(self) -> Tensor:
        """Clip the gradients as the plan says; return their norm before, ()."""
        weights = [w for group in self.optimiser.param_groups for w in group["params"]]
        norm = get_total_norm([w.grad for w in weights if w.grad is not None])
        if self.plan.clip_norm:
            clip_grads_with_norm_(weights, self.plan.clip_norm, norm)
        if self.plan.clip_value:
            clip_grad_value_(weights, self.plan.clip_value)
        return norm


def label_weights(label: Tensor, labelled: str) -> Tensor | None:
    """Return how likely each cell is drawn for its label, (n,); None where none is drawn."""
    if labelled == "minibatch":
        return None
    weights = (label >= 0).float()
    if labelled == "balanced":
        _, place, size = label.unique(return_inverse=True, return_counts=True)
        weights /= size[place]
    return weights
