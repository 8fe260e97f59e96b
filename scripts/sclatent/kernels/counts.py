"""The other gene-wide end of a model: from the decoder's hidden state to the likelihood of counts.

`counts_loss` is the mean negative log-likelihood of a minibatch. Its gradients are computed on the
way, those of the largest weights by another thread.

Letters for shapes: B cells of a minibatch, G genes, H hidden units, R rows of a table of thetas.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels import likelihood
from sclatent.kernels.arithmetic import ONE, clip, exp, kernel
from sclatent.kernels.likelihood import ZERO, Fields, Gradients, Modes
from sclatent.kernels.operators import Kernels, active, array, multiply

N_HEADS = 3
"""Of rates, thetas and extra zeros; not all of them are there."""
LOG_FACTORIALS = np.array([math.lgamma(x + 1.0) for x in range(1024)])


class Head(NamedTuple):
    """A matrix of logits, hidden W' + b; without a weight, `hidden` is the logits."""

    hidden: Tensor  # (B, H), or the logits (B, G)
    weight: Tensor | None = None  # (G, H)
    bias: Tensor | None = None  # (G,)

    @classmethod
    def of(cls, hidden: Tensor, layer: nn.Module) -> Head:
        """Return what a layer makes of a hidden state; a linear one is multiplied later."""
        if isinstance(layer, nn.Linear):
            return cls(hidden, layer.weight, layer.bias)
        return cls(layer(hidden))


class Table(NamedTuple):
    """Log thetas that cells look up."""

    log_theta: Tensor  # (R, G), or (G,) for all cells
    row: Tensor | None  # (B,) int64; None for all cells alike
    bounds: tuple[float, float]  # of log theta


class Thetas(NamedTuple):
    """Thetas per cell and gene."""

    head: Head
    mode: int  # LOG_THETA or SOFTPLUS_THETA
    bounds: tuple[float, float]  # of log theta, or of theta


def counts_loss(
    minibatch,
    mean_mode: int,
    mean: Head,
    log_library: Tensor,
    theta: Table | Thetas | None = None,
    pi: Head | None = None,
) -> Tensor:
    """Return the mean of -log p(x) over the cells of a minibatch, in nats, ().

    The gradients of the heads' weights are computed by another thread while `backward` goes on, and
    are in place after `Kernels.finish` only.

    Parameters
    ----------
    minibatch
        B cells.
    mean_mode, mean
        SOFTMAX or EXPONENTIAL, and the logits of the rates.
    log_library
        (B, 1); with EXPONENTIAL the log of the size factor.
    theta
        Of a negative binomial; None is a Poisson distribution.
    pi
        Logits of extra zeros; None for none.
    """
    fixed, log_theta, heads = describe(minibatch, mean_mode, mean, theta, pi)
    return CountsLoss.apply(fixed, log_library, log_theta, *heads)


class Fixed(NamedTuple):
    """What gets no gradient."""

    kernels: Kernels
    block: NamedTuple
    modes: Modes
    bounds: tuple[float, float]  # of log theta, or of theta
    row: Tensor | None  # of the table of thetas, (B,)


def describe(minibatch, mean_mode: int, mean: Head, theta, pi) -> tuple[Fixed, Tensor | None, list]:
    """Return what is fixed, the log thetas of a table, and the three parts of each head.

    Parameters are as for `counts_loss`. There are always three heads; None stands for what is not
    there.
    """
    absent, log_theta, row, bounds = Head(None), None, None, (0.0, 0.0)
    heads, mode = [mean, absent, pi or absent], likelihood.POISSON
    if isinstance(theta, Table):
        mode, (log_theta, row, bounds) = likelihood.TABLE, theta
    elif theta is not None:
        heads[1], mode, bounds = theta
    modes = Modes(mean_mode, mode, pi is not None)
    fixed = Fixed(active(), minibatch.block, modes, bounds, row)
    return fixed, log_theta, [part for head in heads for part in head]


class CountsLoss(Function):
    """The mean negative log-likelihood; its gradients are computed on the way."""

    @staticmethod
    def forward(ctx, fixed, log_library, log_theta, *heads):
        """Return the loss."""
        products = [Product(fixed.kernels, *heads[place : place + 3]) for place in (0, 3, 6)]
        step = Step(fixed, products)
        ctx.kernels, ctx.products = fixed.kernels, zip(heads[1::3], products, strict=True)
        loss, ctx.gradients = step.run(log_library, log_theta, any(ctx.needs_input_grad))
        return torch.tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients, times that of the loss."""
        factor, gradients = float(gradient), ctx.gradients
        if factor != 1:
            gradients = [None if g is None else g.mul_(factor) for g in gradients]
        for weight, product in ctx.products:
            if weight is not None and weight.requires_grad:
                ctx.kernels.later.append((weight, product.by_weight, factor))
        return None, *gradients


class Product:
    """The logits of a head, and what their gradient makes of it.

    The gradient takes the place of the logits in memory.
    """

    def __init__(self, kernels: Kernels, hidden, weight, bias):
        self.there, self.weighted = hidden is not None, weight is not None
        if self.weighted:
            shape = (len(hidden), len(weight))
            self.hidden, self.weight = kernels.narrow(hidden), kernels.narrow(weight)
            self.logits, self.bias = torch.empty(shape, dtype=kernels.dtype), array(bias)
            self.by_hidden, self.by_weight = torch.empty(hidden.shape), torch.empty_like(weight)
        elif self.there:
            self.logits = hidden.float().clone()
            self.bias = np.zeros(hidden.shape[1], np.float32)
        else:
            self.logits = torch.empty((0, 0), dtype=kernels.dtype)
            self.bias = np.empty(0, np.float32)
        self.values = array(self.logits)

    def multiply(self, part: slice) -> None:
        """Fill the logits of some cells."""
        if self.weighted:
            torch.mm(self.hidden[part], self.weight.t(), out=self.logits[part])

    def multiply_back(self, part: slice) -> None:
        """Fill the gradient by the hidden state of some cells."""
        if self.weighted:
            multiply(self.logits[part], self.weight, self.by_hidden[part])

    def multiply_weight(self) -> None:
        """Fill the gradient by the weights, of which there are some."""
        multiply(self.logits.t(), self.hidden, self.by_weight)

    def gradients(self, by_bias: np.ndarray) -> tuple:
        """Return the gradients by hidden state, weight (which comes later) and bias."""
        if not self.weighted:
            return (self.logits if self.there else None), None, None
        return self.by_hidden, None, torch.from_numpy(by_bias)


class Step(NamedTuple):
    """The likelihood of a minibatch, shared out between threads."""

    fixed: Fixed
    heads: list[Product]

    def run(
        self, log_library: Tensor, log_theta, with_gradients: bool
    ) -> tuple[float, list | None]:
        """Return the loss, and its gradients by library, table, and each head's three tensors."""
        n_cells, team = len(log_library), self.fixed.kernels.team
        given, table, bounds = self.thetas(log_theta)
        row = np.zeros(n_cells, np.int64) if self.fixed.row is None else array(self.fixed.row)
        cells = (table, row, bounds, array(log_library)[:, 0])
        scale = np.float32(-1 / n_cells if with_gradients else 0)
        log_p, by_library = np.empty((2, n_cells), np.float32)
        sums = np.zeros((team.size, N_HEADS + len(table), table.shape[1]), np.float32)

        def evaluate(number: int, part: slice) -> None:
            for head in self.heads:
                head.multiply(part)
            self.evaluate(part, cells, scale, log_p[part], sums[number], by_library[part])
            if with_gradients:
                for head in self.heads:
                    head.multiply_back(part)

        team.share(evaluate, n_cells)
        if with_gradients:
            for head in self.heads:
                if head.weighted:
                    team.begin(head.multiply_weight)
        loss = add(log_p, given, bounds, sums)
        if not with_gradients:
            return loss, None
        by_log_theta = None
        if log_theta is not None:
            by_log_theta = torch.from_numpy(sums[0, N_HEADS:]).view(log_theta.shape)
        by_heads = [head.gradients(by) for head, by in zip(self.heads, sums[0], strict=False)]
        by_library = torch.from_numpy(by_library)[:, None]
        return loss, [by_library, by_log_theta, *(g for by in by_heads for g in by)]

    def thetas(self, log_theta) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the table of log thetas, (R, G), that of thetas, and the bounds."""
        n_genes, bounds = self.heads[0].values.shape[1], np.float32(self.fixed.bounds)
        if log_theta is None:
            nothing = np.empty((0, n_genes), np.float32)
            return nothing, nothing, bounds
        given = array(log_theta).reshape(-1, n_genes)
        return given, look_up(given, bounds), bounds

    def evaluate(self, part: slice, cells: tuple, scale, log_p, sums, by_library) -> None:
        """Run the kernel on some cells."""
        block = self.fixed.block
        table, row, bounds, log_library = cells
        fields, into = [], []
        for head, by_bias in zip(self.heads, sums, strict=False):
            logits = head.values[part]
            fields += [logits, head.bias]
            into += [logits, by_bias]
        likelihood.count_log_likelihood(
            self.fixed.modes,
            Fields(*fields, table, row[part], bounds, log_library[part]),
            (block.indptr[part.start : part.stop + 1], block.genes, block.values),
            LOG_FACTORIALS,
            scale,
            log_p,
            Gradients(*into, sums[N_HEADS:], by_library),
        )


@kernel
def look_up(log_theta, bounds):
    """Return theta of a table of log thetas, (R, G), within the bounds."""
    theta = np.empty_like(log_theta)
    for r in range(len(theta)):
        for g in range(theta.shape[1]):
            theta[r, g] = exp(clip(log_theta[r, g], bounds[0], bounds[1]))
    return theta


@kernel
def add(log_p, log_theta, bounds, sums):
    """Add the sums of all threads up in those of the first one, (..., G); return -mean(log p).

    The last rows are gradients by a table of log thetas, which pass within its bounds alone.
    """
    of_all = sums[0]
    for part in range(1, len(sums)):
        for r in range(len(of_all)):
            for g in range(of_all.shape[1]):
                of_all[r, g] += sums[part, r, g]
    first = len(of_all) - len(log_theta)
    for r in range(len(log_theta)):
        for g in range(of_all.shape[1]):
            inside = bounds[0] <= log_theta[r, g] <= bounds[1]
            of_all[first + r, g] *= ONE if inside else ZERO
    whole = 0.0
    for b in range(len(log_p)):
        whole -= log_p[b]
    return whole / len(log_p)
