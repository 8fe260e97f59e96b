"""The whole negative ELBO of scVI as one operator, where encoder and decoder have one hidden layer.

At small minibatches PyTorch and autograd take longer for the operators between the gene-wide ends
than these compute. Here autograd sees one operator of one weight: the gradients are computed on the
way, and `Kernels.finish` puts those of the other weights in place. It is made of the same parts as
the operators of `layer.py`, `latent.py` and `counts.py`, which serve every other model, and in the
order of `SCVI.loss`, so that the same random numbers are drawn.

Letters for shapes: B cells, L latent dimensions, C columns of covariates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.counts import Fixed, Product, Step
from sclatent.kernels.latent import Heads, Sample
from sclatent.kernels.layer import Activation, Beside
from sclatent.kernels.operators import Rows, array


class Network(NamedTuple):
    """The encoder and the decoder's hidden layer; a pair is a weight and a bias."""

    encode: tuple[Tensor, Tensor]
    encode_norm: nn.BatchNorm1d
    mean: tuple[Tensor, Tensor]
    log_variance: tuple[Tensor, Tensor]
    decode: tuple[Tensor, Tensor]
    decode_norm: nn.BatchNorm1d
    dropout: float
    floor: float  # of the variance

    @classmethod
    def of(cls, encoder: nn.Module, decoder: nn.Module) -> Network:
        """Return that of a `Gaussian` and `Layers`."""
        linears = encoder.layers.linear[0], encoder.mean, encoder.log_variance, decoder.linear[0]
        encode, mean, log_variance, decode = ((x.weight, x.bias) for x in linears)
        norms = encoder.layers.norm[0], decoder.norm[0]
        dropout, floor = encoder.layers.dropout.p, encoder.floor
        return cls(encode, norms[0], mean, log_variance, decode, norms[1], dropout, floor)


class Seen(NamedTuple):
    """What a step sees of a minibatch."""

    rows: Rows  # by the encoder, with the covariates beside it
    columns: Tensor | None  # by the decoder, (B, C)
    log_library: Tensor  # (B, 1)
    kl_weight: float


def elbo(
    network: Network, seen: Seen, fixed: Fixed, log_theta: Tensor | None, heads: list
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the negative ELBO, its reconstruction term and its KL term, per cell in nats, each ().

    Parameters
    ----------
    network, seen
        Weights and data.
    fixed, log_theta, heads
        As `counts.describe` returns them for heads without a hidden state.
    """
    return Elbo.apply(network.encode[1], network, seen, fixed, log_theta, heads)


class Elbo(Function):
    """The negative ELBO and its two terms; only the first one is differentiable."""

    @staticmethod
    def forward(ctx, bias, network, seen, fixed, log_theta, heads):
        """Return the three; `bias` is the encoder's."""
        encode, decode = network.encode, network.decode
        norms = [(n.weight, n.bias, n) for n in (network.encode_norm, network.decode_norm)]
        encoded = Activation(seen.rows.times(encode[0]), bias, *norms[0], network.dropout)
        latent = Heads(encoded.out, *network.mean, *network.log_variance, network.floor)
        sample = Sample(latent.mean, latent.variance, array(torch.randn(latent.mean.shape)))
        inputs = Beside(sample.z, seen.columns)
        decoded = Activation(inputs.times(decode[0]), decode[1], *norms[1], 0.0)

        hidden, weights = torch.from_numpy(decoded.out), heads[1::3]
        pairs = list(zip(weights, heads[2::3], strict=True))
        products = [Product(fixed.kernels, None if w is None else hidden, w, b) for w, b in pairs]
        step = Step(fixed, products)
        loss, (_, by_log_theta, *by_heads) = step.run(seen.log_library, log_theta, True)
        by_hidden, *others = [by.numpy() for by in by_heads[::3] if by is not None]

        by_value, by_decode = decoded.back(sum(others, start=by_hidden))
        by_kl = np.full(len(by_value), seen.kl_weight / len(by_value), np.float32)
        by_normal = sample.back(inputs.by_x(by_value, decode[0]), by_kl)
        by_hidden, *by_latent = latent.back(*by_normal)
        by_encoded, by_encode = encoded.back(by_hidden)
        ctx.by_bias, ctx.kernels = by_encode[0], fixed.kernels
        ctx.gradients = [
            (encode[0], seen.rows.by_weight(by_encoded)),
            *zip(norms[0][:2], by_encode[1:], strict=True),
            *zip(
                network.mean + network.log_variance, map(torch.from_numpy, by_latent), strict=True
            ),
            (decode[0], inputs.by_weight(by_value)),
            *zip((decode[1], *norms[1][:2]), by_decode, strict=True),
            *((w, x.by_weight) for w, x in zip(weights, products, strict=True) if x.weighted),
            *((b, by) for (_, b), by in zip(pairs, by_heads[2::3], strict=True) if b is not None),
            *([] if log_theta is None else [(log_theta, by_log_theta)]),
        ]
        kl = sample.divergence.mean()
        total = loss + float(seen.kl_weight * kl)
        kl = torch.from_numpy(np.asarray(kl))
        ctx.mark_non_differentiable(loss, kl)
        return total, loss, kl

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        """Return the gradient by the bias; those of the other weights wait for `Kernels.finish`."""
        factor = float(gradient)
        ctx.kernels.later += [(w, by, factor) for w, by in ctx.gradients if w.requires_grad]
        return gradient * ctx.by_bias, None, None, None, None, None
