"""How the gene-wide ends of a model are computed, and the first of them: the encoder's input.

`Rows` stands for the counts of a minibatch, of which only products with weights are taken; the
other end is in `counts.py`. Between them a model is plain PyTorch. Matrix products take bfloat16
numbers where the CPU multiplies them, else float32; likelihood and softmax are always float32.

Letters for shapes: B cells of a minibatch, G genes, H hidden units, C columns beside the genes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.rows import spread_logs, spread_standardised
from sclatent.kernels.team import Team

LOG1P = np.log1p(np.arange(4096, dtype=np.float64)).astype(np.float32)

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
