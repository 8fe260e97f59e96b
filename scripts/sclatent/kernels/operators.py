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
        self.kept: dict = {}  # what operators keep for the next step
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


def multiply(first: Tensor, second: Tensor, out: Tensor) -> None:
    """Fill `out`, which is float32, with the product of two matrices of the products' numbers."""
    if first.dtype == out.dtype:
        torch.mm(first, second, out=out)
    else:
        out.copy_(torch.mm(first, second))


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

    def times(self, weight: Tensor) -> np.ndarray:
        """Return the product with a weight (H, G + C), (B, H); bfloat16 as uint16."""
        kernels, dense = self.kernels, self.dense
        narrow = kernels.narrow(weight[:, : dense.shape[1]] if self.columns is not None else weight)
        result = torch.empty((len(dense), len(weight)), dtype=kernels.dtype)

        def multiply_part(_, part: slice) -> None:
            self.fill(part)
            torch.mm(dense[part], narrow.t(), out=result[part])

        kernels.team.share(multiply_part, len(dense))
        self.filled = True
        if self.columns is not None:
            result = torch.addmm(result.float(), self.columns, weight[:, dense.shape[1] :].t())
        return array(result)

    def by_weight(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the weight from that of the product, in any numbers."""
        dense = self.dense
        n_columns = 0 if self.columns is None else self.columns.shape[1]
        result = torch.empty((gradient.shape[1], dense.shape[1] + n_columns))
        narrow, by_dense = self.kernels.narrow(gradient).t(), result[:, : dense.shape[1]]

        def fill(part: slice) -> None:
            multiply(narrow[part], dense, by_dense[part])

        self.kernels.team.deal(fill, len(result), 16)
        if n_columns:
            torch.mm(gradient.t().float(), self.columns, out=result[:, dense.shape[1] :])
        return result


class RowsProduct(Function):
    """The linear map of a `Rows`: x W' + b, (B, H)."""

    @staticmethod
    def forward(ctx, rows, weight, bias):
        """Return the map of the rows."""
        ctx.rows, product = rows, rows.times(weight)
        wide = torch.from_numpy(product)
        return (wide.view(torch.bfloat16) if product.dtype == np.uint16 else wide) + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients of weight and bias."""
        return None, ctx.rows.by_weight(gradient), gradient.sum(0)
