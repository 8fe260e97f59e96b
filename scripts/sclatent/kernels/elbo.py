"""The whole negative ELBO of scVI as one operator, where encoder and decoder have one hidden layer.

At small minibatches PyTorch and autograd take longer for the operators between the gene-wide ends
than these compute. Here the gradients are computed on the way, without autograd. It is made of the
same kernels as the operators of `layer.py`, `latent.py` and `counts.py`, which serve every other
model, and in the order of `SCVI.loss`, so that the same random numbers are drawn.

Letters for shapes: B cells, C columns of covariates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sclatent.kernels.between import Between
from sclatent.kernels.counts import Fixed, Product, Step
from sclatent.kernels.operators import Kernels, Rows


class Seen(NamedTuple):
    """What a step sees of a minibatch."""

    rows: Rows  # by the encoder, with the covariates beside it
    columns: Tensor | None  # by the decoder, (B, C)
    log_library: Tensor  # (B, 1)
    kl_weight: float


class Known(float):
    """A term of the loss, with the methods of a tensor that the training loop calls.

    Attributes
    ----------
    gradients
        Weights and their gradients, known already.
    """

    kernels: Kernels
    gradients: tuple = ()

    def item(self) -> float:
        """Return the number."""
        return float(self)

    def detach(self) -> Tensor:
        """Return the number as a tensor, ()."""
        return torch.tensor(float(self))

    def backward(self) -> None:
        """Leave the gradients to `Kernels.finish`, which puts them in place."""
        self.kernels.later += [(w, by, 1.0) for w, by in self.gradients if w.requires_grad]


@torch.no_grad()
def elbo(
    encoder: nn.Module,
    decoder: nn.Module,
    seen: Seen,
    fixed: Fixed,
    log_theta: Tensor | None,
    heads: list,
) -> tuple[Known, Known, Known]:
    """Return the negative ELBO, its reconstruction term and its KL term, per cell in nats.

    Parameters
    ----------
    encoder, decoder
        A `Gaussian` and `Layers` of one layer each.
    seen
        Data.
    fixed, log_theta, heads
        As `counts.describe` returns them for heads without a hidden state.
    """
    kernels, rows = fixed.kernels, seen.rows
    between = kernels.kept.get(encoder)
    if between is None:
        between = kernels.kept[encoder] = Between(encoder, decoder, kernels.dtype)
    hidden, kl = between.there(rows.times(between.encode), seen.columns)

    pairs = list(zip(heads[1::3], heads[2::3], strict=True))
    products = [Product(kernels, None if w is None else hidden, w, b) for w, b in pairs]
    loss, (_, by_log_theta, *by_heads) = Step(fixed, products).run(
        seen.log_library, log_theta, True
    )
    by_hidden, *others = [by.numpy() for by in by_heads[::3] if by is not None]

    by_decoded = sum(others, start=by_hidden)
    by_product, gradients = between.back(by_decoded, seen.kl_weight / len(by_decoded))
    gradients.append((between.encode, rows.by_weight(by_product)))
    for (weight, bias), product, by_bias in zip(pairs, products, by_heads[2::3], strict=True):
        if weight is not None:
            gradients += [(weight, product.by_weight), (bias, by_bias)]
    if log_theta is not None:
        gradients.append((log_theta, by_log_theta))
    total = Known(loss + seen.kl_weight * kl)
    total.kernels, total.gradients = kernels, gradients
    return total, Known(loss), Known(kl)
