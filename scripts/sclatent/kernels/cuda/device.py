"""What a model computes with on a GPU: the operators behind the names that the models call.

A model asks for its input (`logs`, `standardised`), multiplies it with the weights of its first
layer (`Inputs.through`), and gives its last hidden state and the weights of its heads to
`counts_loss`. Products with all genes take the numbers of `dtype`; all else is float32.

Letters for shapes: B cells of a minibatch, G genes, H hidden units, C columns beside the genes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sclatent.kernels.cuda.kinds import Kind, Terms
from sclatent.kernels.cuda.operators import log_likelihood

MEANS = ("softmax", "exponential")
"""How logits become rates, by the numbers of the kernels for a CPU."""
THETAS = {2: "clamped", 3: "softplus"}
"""How logits become thetas, by the same."""


@dataclass(frozen=True)
class Inputs:
    """The input of an encoder; it is only multiplied with weights."""

    dense: Tensor  # (B, G)
    columns: Tensor | None = None  # (B, C) float32

    def beside(self, columns: Tensor) -> Inputs:
        """Return the input with further columns at its side."""
        if self.columns is not None:
            columns = torch.cat([self.columns, columns], 1)
        return replace(self, columns=columns)

    def through(self, layer: nn.Module) -> Tensor | Inputs:
        """Return what a linear layer makes of the input, (B, H); other layers leave it."""
        if not isinstance(layer, nn.Linear):
            return self
        n_genes = self.dense.shape[1]
        weight = layer.weight[:, :n_genes].to(self.dense.dtype)
        result = linear(self.dense, weight).float() + layer.bias
        if self.columns is None:
            return result
        return result + linear(self.columns, layer.weight[:, n_genes:])


class DeviceKernels:
    """The operators on minibatches of `ResidentCells`.

    Parameters
    ----------
    dtype
        Of the products with all genes: bfloat16 or float32.
    """

    def __init__(self, dtype=torch.bfloat16):
        self.dtype = dtype

    def logs(self, minibatch) -> Inputs:
        """Return log1p of the counts of a minibatch, (B, G)."""
        return Inputs(minibatch.inputs)

    def standardised(self, minibatch, *_) -> Inputs:
        """Return the input that the resident cells standardise as they are gathered, (B, G)."""
        return Inputs(minibatch.inputs)

    def activation(self, norm: nn.BatchNorm1d, x: Tensor, probability: float) -> Tensor:
        """Return dropout(relu(norm(x))) of a minibatch in training, (B, H)."""
        return nn.functional.dropout(torch.relu(norm(x)), probability)

    def counts_loss(self, minibatch, *heads) -> Tensor:
        """Return the mean of -log p(x) over the cells, (); see `log_prob`."""
        return -self.log_prob(minibatch.gathered.counts, *heads).mean()

    def log_prob(
        self, counts: Tensor, mean_mode: int, mean, log_library: Tensor, theta=None, pi=None
    ) -> Tensor:
        """Return log p(x) of each cell in nats, (B,).

        Parameters
        ----------
        counts
            (B, G), as they are gathered.
        mean_mode, mean
            Place in `MEANS`, and the head of the rates: hidden state (B, H), weight (G, H) and bias
            (G,); without a weight the hidden state is the logits (B, G).
        log_library
            (B, 1); the log size factor where means are exponential.
        theta
            Of a negative binomial: a table `log_theta` (R, G) and the `row` of each cell (B,); or a
            `head`, its `mode` among `THETAS`, and `bounds`. None for a Poisson distribution.
        pi
            Head of the extra zeros, or None.
        """
        terms = {"log_library": log_library[:, 0]}
        terms["logits"], terms["bias"] = self.logits(mean, counts.shape)
        name, bounds = "none", (0.0, 0.0)
        if hasattr(theta, "log_theta"):
            name, one = "log", len(theta.log_theta) == 1
            terms["theta"] = theta.log_theta[0] if one else theta.log_theta
            terms["theta_row"] = None if one else theta.row
        elif theta is not None:
            name, bounds = THETAS[theta.mode], theta.bounds
            terms["theta"], terms["theta_bias"] = self.logits(theta.head, counts.shape)
        if pi is not None:
            terms["pi"], terms["pi_bias"] = self.logits(pi, counts.shape)
        kind = Kind(MEANS[mean_mode], name, pi is not None, *bounds)
        return log_likelihood(kind, counts, Terms(**terms))

    def logits(self, head, shape: tuple) -> tuple[Tensor, Tensor | None]:
        """Return the logits of a head without its bias, (B, G), and the bias, (G,) or None."""
        if head.weight is None:
            return head.hidden, None
        if len(head.weight) == 1:  # the same for all genes
            return linear(head.hidden, head.weight, head.bias).expand(shape), None
        return linear(head.hidden.to(self.dtype), head.weight.to(self.dtype)), head.bias
