"""The two ends of a model that are as wide as the genes, as operators of autograd.

`Rows` stands for the encoder's input: counts of a minibatch of which only products with weights are
taken. `counts_loss` is the mean negative log-likelihood of a minibatch, from the decoder's hidden
state on. Between them a model is plain PyTorch. Matrix products take bfloat16 numbers where the CPU
multiplies them, else float32; likelihood and softmax are always float32.

Letters for shapes: B cells of a minibatch, G genes, H hidden units, C columns beside the genes.
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
from sclatent.kernels.likelihood import Fields, Gradients, Modes
from sclatent.kernels.rows import spread_logs, spread_standardised
from sclatent.kernels.team import Team

LOG1P = np.log1p(np.arange(4096, dtype=np.float64)).astype(np.float32)
LOG_FACTORIALS = np.array([math.lgamma(x + 1.0) for x in range(1024)])


ACTIVE: list[Kernels] = []
"""The kernels in use; the last one counts."""


def active() -> Kernels | None:
    """Return the kernels that the models use now; None for plain PyTorch."""
    return ACTIVE[-1] if ACTIVE else None


class Kernels:
    """How products are computed: their numbers and the threads that share them.

    Used as a context, they are what the models compute with.

    Parameters
    ----------
    precision
        ``bfloat16`` or ``float32``; ``auto`` is the first where the CPU has instructions for it.
    team
        Threads.
    """

    def __init__(self, precision: str = "auto", team: Team | None = None):
        if precision == "auto":
            precision = "bfloat16" if multiplies_bfloat16() else "float32"
        self.precision, self.team = precision, team or Team()
        self.later: list[tuple[Tensor, Tensor, float]] = []
        self.dtype = getattr(torch, precision)

    def __enter__(self) -> Kernels:
        """Let the models use the kernels."""
        ACTIVE.append(self)
        return self

    def __exit__(self, *_) -> None:
        ACTIVE.pop()

    def finish(self) -> None:
        """Wait for the gradients of weights that other threads compute, and put them in place."""
        self.team.finish()
        for weight, gradient, factor in self.later:
            gradient = gradient if factor == 1 else gradient.mul_(factor)
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
        self.later.clear()

    def narrow(self, matrix: Tensor) -> Tensor:
        """Return a matrix in the numbers of the products."""
        return matrix.to(self.dtype)

    def logs(self, minibatch) -> Rows:
        """Return log1p of the counts of a minibatch, (B, G)."""
        return Rows(self, minibatch.block, spread_logs, (LOG1P,))

    def standardised(self, minibatch, size_factor: Tensor, mean: Tensor, sd: Tensor) -> Rows:
        """Return (log1p(counts / size factor) - mean) / sd of a minibatch, (B, G).

        `size_factor` is (B, 1), `mean` and `sd` are (G,).
        """
        nothing = self.narrow(-mean / sd)
        given = tuple(map(array, (size_factor[:, 0], mean, sd, nothing)))
        return Rows(self, minibatch.block, spread_standardised, given)


def multiplies_bfloat16() -> bool:
    """Say whether this CPU has instructions for products of bfloat16 numbers."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def array(tensor: Tensor) -> np.ndarray:
    """Return a view of a tensor for the kernels, bfloat16 as uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class Rows:
    """A matrix of counts, transformed, and columns beside it; only multiplied with weights.

    Parameters
    ----------
    kernels
        How it is multiplied.
    block
        The counts of a minibatch.
    spread, given
        A kernel that fills dense rows from the block, and what it needs beside it.
    columns
        (B, C) float32; they get no gradient.
    """

    def __init__(self, kernels: Kernels, block, spread, given: tuple, columns=None):
        self.kernels, self.block, self.spread, self.given = kernels, block, spread, given
        self.columns: Tensor | None = columns
        shape = (len(block.indptr) - 1, block.n_genes)
        self.dense, self.filled = torch.empty(shape, dtype=kernels.dtype), False

    def fill(self, part: slice) -> None:
        """Fill dense rows, unless all are filled."""
        if not self.filled:
            block = tuple(self.block[:3])
            self.spread(block, *self.given, array(self.dense), part.start, part.stop)

    def beside(self, columns: Tensor) -> Rows:
        """Return the matrix with further columns at its side."""
        if self.columns is not None:
            columns = torch.cat([self.columns, columns], 1)
        return Rows(self.kernels, self.block, self.spread, self.given, columns)

    def through(self, layer: nn.Module):
        """Return what a linear layer makes of the matrix, (B, H); other layers leave it."""
        if not isinstance(layer, nn.Linear):
            return self
        return RowsProduct.apply(self, layer.weight, layer.bias)


class RowsProduct(Function):
    """The linear map of a `Rows`: x W' + b, (B, H)."""

    @staticmethod
    def forward(ctx, rows, weight, bias):
        """Return the map of the rows."""
        n_genes, kernels, dense = rows.block.n_genes, rows.kernels, rows.dense
        narrow = kernels.narrow(weight[:, :n_genes]).t()
        result = torch.empty((len(dense), len(weight)))

        def multiply(_, part: slice) -> None:
            rows.fill(part)
            torch.add(torch.mm(dense[part], narrow), bias, out=result[part])

        kernels.team.share(multiply, len(dense))
        rows.filled = True
        if rows.columns is not None:
            result.addmm_(rows.columns, weight[:, n_genes:].t())
        ctx.rows, ctx.shape = rows, weight.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients of weight and bias."""
        rows, by_weight = ctx.rows, torch.empty(ctx.shape)
        n_genes = rows.block.n_genes
        narrow = rows.kernels.narrow(gradient).t()

        def multiply(_, part: slice) -> None:
            by_weight[part, :n_genes] = torch.mm(narrow[part], rows.dense)

        rows.kernels.team.share(multiply, len(by_weight), 16)
        if rows.columns is not None:
            torch.mm(gradient.t(), rows.columns, out=by_weight[:, n_genes:])
        return None, by_weight, gradient.sum(0)


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

    log_theta: Tensor  # (R, G)
    row: Tensor  # (B,) int64


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
    absent, log_theta, row, bounds = Head(None), None, None, (0.0, 0.0)
    heads, mode = [mean, absent, pi or absent], likelihood.POISSON
    if isinstance(theta, Table):
        mode, (log_theta, row) = likelihood.TABLE, theta
    elif theta is not None:
        heads[1], mode, bounds = theta
    modes = Modes(mean_mode, mode, pi is not None)
    fixed = (active(), minibatch.block, modes, bounds, row)
    return CountsLoss.apply(fixed, log_library, log_theta, *(x for h in heads for x in h))


class CountsLoss(Function):
    """The mean negative log-likelihood; its gradients are computed on the way."""

    @staticmethod
    def forward(ctx, fixed, log_library, log_theta, *heads):
        """Return the loss."""
        kernels, block, modes, bounds, row = fixed
        products = [Product(kernels, *heads[place : place + 3]) for place in (0, 3, 6)]
        step = Step(kernels, block, modes, bounds, products)
        ctx.kernels, ctx.products = kernels, zip(heads[1::3], products, strict=True)
        loss, ctx.gradients = step.run(log_library, log_theta, row, any(ctx.needs_input_grad))
        return loss

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
        self.kernels, self.there, self.weighted = kernels, hidden is not None, weight is not None
        if not self.there:
            self.logits, self.bias = torch.empty((0, 0), dtype=kernels.dtype), torch.empty(0)
            return
        if not self.weighted:
            self.logits, self.bias = hidden.float().clone(), torch.zeros(hidden.shape[1])
            return
        self.hidden, self.weight = kernels.narrow(hidden), kernels.narrow(weight)
        self.logits, self.bias = (
            hidden.new_empty((len(hidden), len(weight)), dtype=kernels.dtype),
            bias,
        )
        self.by_hidden, self.by_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def multiply(self, part: slice) -> None:
        """Fill the logits of some cells."""
        if self.weighted:
            torch.mm(self.hidden[part], self.weight.t(), out=self.logits[part])

    def multiply_back(self, part: slice) -> None:
        """Fill the gradient by the hidden state of some cells."""
        if self.weighted:
            self.by_hidden[part] = torch.mm(self.logits[part], self.weight)

    def multiply_weight(self) -> None:
        """Fill the gradient by the weights."""
        if self.weighted:
            self.by_weight.copy_(torch.mm(self.logits.t(), self.hidden))

    def gradients(self, by_bias: Tensor) -> tuple:
        """Return the gradients by hidden state, weight (which comes later) and bias."""
        if not self.weighted:
            return (self.logits if self.there else None), None, None
        return self.by_hidden, None, by_bias


class Step(NamedTuple):
    """The likelihood of a minibatch, shared out between threads."""

    kernels: Kernels
    block: NamedTuple
    modes: Modes
    bounds: tuple[float, float]
    heads: list[Product]  # of rates, thetas, extra zeros

    def run(self, log_library: Tensor, log_theta, row, with_gradients: bool) -> tuple:
        """Return the loss, and its gradients by library, table, and each head's three tensors."""
        n_cells, n_genes = len(log_library), self.heads[0].logits.shape[1]
        team = self.kernels.team
        table = torch.empty((0, n_genes)) if log_theta is None else log_theta.exp()
        row = torch.zeros(n_cells, dtype=torch.int64) if row is None else row
        log_p, by_library = torch.empty(n_cells), torch.empty_like(log_library)
        sums = [[torch.zeros_like(head.bias) for head in self.heads] for _ in range(team.size)]
        by_table = [torch.zeros_like(table) for _ in range(team.size)]
        cells = (array(table), row.numpy(), np.float32(self.bounds), array(log_library)[:, 0])
        scale = np.float32(-1 / n_cells if with_gradients else 0)

        def evaluate(number: int, part: slice) -> None:
            for head in self.heads:
                head.multiply(part)
            to = (*sums[number], by_table[number], by_library)
            self.evaluate(part, cells, scale, log_p, to)
            if with_gradients:
                for head in self.heads:
                    head.multiply_back(part)

        team.share(evaluate, n_cells)
        loss = -log_p.mean()
        if not with_gradients:
            return loss, None
        for head in self.heads:
            team.begin(head.multiply_weight)
        by_bias = [sum(parts) for parts in zip(*sums, strict=True)]
        return loss, [
            by_library,
            None if log_theta is None else sum(by_table),
            *(g for head, by in zip(self.heads, by_bias, strict=True) for g in head.gradients(by)),
        ]

    def evaluate(self, part: slice, cells: tuple, scale, log_p: Tensor, to: tuple) -> None:
        """Run the kernel on some cells."""
        table, row, bounds, log_library = cells
        *sums, by_table, by_library = to
        logits = [array(head.logits[part]) for head in self.heads]
        biases = [array(head.bias) for head in self.heads]
        fields = [x for pair in zip(logits, biases, strict=True) for x in pair]
        into = [x for pair in zip(logits, map(array, sums), strict=True) for x in pair]
        likelihood.count_log_likelihood(
            self.modes,
            Fields(*fields, table, row[part], bounds, log_library[part]),
            (self.block.indptr[part.start : part.stop + 1], self.block.genes, self.block.values),
            LOG_FACTORIALS,
            scale,
            array(log_p[part]),
            Gradients(*into, array(by_table), array(by_library)[part, 0]),
        )
