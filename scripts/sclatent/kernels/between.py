"""Between the gene-wide ends of scVI, one hidden layer on each side: there and back in two kernels.

They are made of the kernels of `layer.py` and `latent.py`, which serve every other model. At small
minibatches the way from one to the next, through Python, takes longer than they do.

Letters for shapes: B cells, H hidden units, L latent dimensions, C columns of covariates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sclatent.kernels.arithmetic import ONE, kernel, store
from sclatent.kernels.latent import draw, draw_back, spread_out
from sclatent.kernels.layer import activate, activate_back, normalise
from sclatent.kernels.operators import array


class Weights(NamedTuple):
    """The weights, or their gradients; those of a norm are its weight, its bias and one before."""

    encode: np.ndarray  # norm and bias of the encoder's hidden layer, three of (H,)
    mean: np.ndarray  # (L, H)
    mean_bias: np.ndarray  # (L,)
    log_variance: np.ndarray  # (L, H)
    log_variance_bias: np.ndarray  # (L,)
    decode: np.ndarray  # of the decoder's hidden layer, (H, L + C)
    decode_norm: np.ndarray  # norm and bias of the decoder's hidden layer, three of (H,)


class Settings(NamedTuple):
    """What is no weight."""

    encode: tuple  # momentum, eps, and the running mean, variance and number of the norm
    decode: tuple
    floor: float  # of the variance
    threshold: int  # random bits below it drop a hidden unit of the encoder
    factor: float  # of one that is kept


class Kept(NamedTuple):
    """What the way back needs; each step of as many cells writes over it."""

    encode_normal: np.ndarray  # (B, H)
    encode_moments: np.ndarray  # mean and 1 / sd of each unit, (2, H)
    encoded: np.ndarray  # (B, H)
    mean: np.ndarray  # (B, L)
    spread: np.ndarray  # (B, L)
    variance: np.ndarray  # (B, L)
    z: np.ndarray  # (B, L)
    divergence: np.ndarray  # (B,)
    inputs: np.ndarray  # z and the columns, (B, L + C)
    decode_normal: np.ndarray  # (B, H)
    decode_moments: np.ndarray  # (2, H)
    decoded: np.ndarray  # (B, H)
    narrow: np.ndarray  # the same in the numbers of the products
    by_product: np.ndarray  # the gradient by the encoder's product, in the same numbers, (B, H)


@kernel
def narrow_rows(values, out):
    """Fill `out` with values in the numbers of the products, (B, H)."""
    for b in range(len(values)):
        for h in range(values.shape[1]):
            store(out, b, h, values[b, h])


@kernel
def there(product, columns, weights, settings, seed, noise, kept):
    """Fill `kept` from the encoder's product (B, H); return the mean divergence from the prior."""
    gamma, beta, bias = weights.encode
    mean, one_over_sd = kept.encode_moments
    normalise(product, bias, *settings.encode, kept.encode_normal, mean, one_over_sd)
    dropout = (settings.threshold, settings.factor, seed)
    activate(kept.encode_normal, gamma, beta, *dropout, kept.encoded)

    np.dot(kept.encoded, weights.mean.T, kept.mean)
    np.dot(kept.encoded, weights.log_variance.T, kept.spread)
    biases = (weights.mean_bias, weights.log_variance_bias)
    spread_out(kept.mean, biases[0], kept.spread, biases[1], settings.floor, kept.variance)
    draw(kept.mean, kept.variance, noise, kept.z, kept.divergence)

    n_latent = kept.z.shape[1]
    kept.inputs[:, :n_latent] = kept.z
    kept.inputs[:, n_latent:] = columns
    np.dot(kept.inputs, weights.decode.T, kept.decoded)
    gamma, beta, bias = weights.decode_norm
    mean, one_over_sd = kept.decode_moments
    normalise(kept.decoded, bias, *settings.decode, kept.decode_normal, mean, one_over_sd)
    nothing = (np.uint32(0), ONE, np.uint32(0))
    activate(kept.decode_normal, gamma, beta, *nothing, kept.decoded)
    narrow_rows(kept.decoded, kept.narrow)
    whole = np.float32(0)
    for b in range(len(kept.divergence)):
        whole += kept.divergence[b]
    return whole / np.float32(len(kept.divergence))


@kernel
def back(by_decoded, by_divergence, weights, settings, noise, kept, to):
    """Fill the gradients `to` and `kept.by_product` from that by the decoder's hidden state."""
    n_cells, n_latent = kept.z.shape
    by_value = np.empty_like(by_decoded)
    passed = (kept.decode_normal, kept.decoded, ONE)
    known = (weights.decode_norm[0], kept.decode_moments[1])
    activate_back(by_decoded, *passed, *known, to.decode_norm, by_value)
    np.dot(by_value.T, kept.inputs, to.decode)
    by_z = np.dot(by_value, weights.decode)[:, :n_latent]

    by_kl = np.full(n_cells, by_divergence, np.float32)
    by_mean, by_log = np.empty_like(kept.mean), np.empty_like(kept.mean)
    draw_back(by_z, by_kl, kept.mean, kept.variance, noise, by_mean, by_log)
    by_log *= kept.spread
    np.dot(by_mean.T, kept.encoded, to.mean)
    np.dot(by_log.T, kept.encoded, to.log_variance)
    to.mean_bias[:] = 0
    to.log_variance_bias[:] = 0
    for b in range(n_cells):
        for d in range(n_latent):
            to.mean_bias[d] += by_mean[b, d]
            to.log_variance_bias[d] += by_log[b, d]

    by_encoded = np.dot(by_mean, weights.mean)
    by_encoded += np.dot(by_log, weights.log_variance)
    passed = (kept.encode_normal, kept.encoded, settings.factor)
    known = (weights.encode[0], kept.encode_moments[1])
    activate_back(by_encoded, *passed, *known, to.encode, by_value)
    narrow_rows(by_value, kept.by_product)


class Between:
    """The encoder but for its product with the counts, and the decoder's hidden layer.

    It looks at the memory of the weights, which have to stay where they are: optimisers and
    `load_state_dict` change them in place.

    Parameters
    ----------
    encoder, decoder
        A `Gaussian` and `Layers` of one layer each.
    dtype
        Numbers of the products.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, dtype: torch.dtype):
        layers, self.dtype = encoder.layers, dtype
        linear, norm = layers.linear[0], layers.norm[0]
        self.encode, self.kept = linear.weight, {}
        decode, decode_norm = decoder.linear[0], decoder.norm[0]
        heads = encoder.mean, encoder.log_variance
        self.tensors = [
            (norm.weight, norm.bias, linear.bias),
            *(tensor for head in heads for tensor in (head.weight, head.bias)),
            decode.weight,
            (decode_norm.weight, decode_norm.bias, decode.bias),
        ]
        self.weights = Weights(
            *(tuple(map(array, x)) if isinstance(x, tuple) else array(x) for x in self.tensors)
        )
        self.dropout = layers.dropout.p
        settings = np.float32(encoder.floor), np.uint32(self.dropout * 2**32)
        factor = np.float32(1 / (1 - self.dropout))
        self.settings = Settings(moving(norm), moving(decode_norm), *settings, factor)

    def room(self, n_cells: int) -> tuple[Kept, Tensor, Tensor]:
        """Return what is kept of so many cells, and its last two arrays as tensors."""
        if n_cells not in self.kept:
            n_latent, n_hidden = self.weights.mean.shape
            wide, moments, latent = (n_cells, n_hidden), (2, n_hidden), (n_cells, n_latent)
            inputs = (n_cells, self.weights.decode.shape[1])
            shapes = [wide, moments, wide, *[latent] * 4, (n_cells,), inputs, wide, moments, wide]
            narrow = [torch.empty(wide, dtype=self.dtype) for _ in range(2)]
            rooms = (np.empty(shape, np.float32) for shape in shapes)
            self.kept[n_cells] = Kept(*rooms, *map(array, narrow)), *narrow
        return self.kept[n_cells]

    def there(self, product: np.ndarray, columns: Tensor | None) -> tuple[Tensor, float]:
        """Return the decoder's hidden state, (B, H), and the mean divergence from the prior.

        Parameters
        ----------
        product
            Of the counts and the encoder's first weights, (B, H).
        columns
            That the decoder sees, (B, C).
        """
        n_cells, seed = len(product), 0
        if self.dropout:
            seed = int(torch.empty((), dtype=torch.int64).random_(2**32))
        n_latent = self.weights.mean.shape[0]
        noise = array(torch.randn(n_cells, n_latent))
        beside = np.empty((n_cells, 0), np.float32) if columns is None else array(columns)
        kept, narrow, by_product = self.room(n_cells)
        given = (self.weights, self.settings)
        divergence = there(product, beside, *given, np.uint32(seed), noise, kept)
        self.step = noise, kept, by_product
        return narrow, divergence

    def back(self, by_decoded: np.ndarray, by_divergence: float) -> tuple[Tensor, list]:
        """Return the gradient by the encoder's product, (B, H), and each weight with its gradient.

        Parameters
        ----------
        by_decoded
            The gradient by the decoder's hidden state, (B, H).
        by_divergence
            That by the divergence of each cell.
        """
        noise, kept, by_product = self.step
        to = Weights(
            *(
                np.empty((3, len(x[0])) if isinstance(x, tuple) else x.shape, np.float32)
                for x in self.weights
            )
        )
        back(by_decoded, np.float32(by_divergence), self.weights, self.settings, noise, kept, to)
        gradients = []
        for tensor, gradient in zip(self.tensors, to, strict=True):
            gradient = torch.from_numpy(gradient)
            if isinstance(tensor, tuple):
                gradients += zip(tensor, gradient.unbind(), strict=True)
            else:
                gradients.append((tensor, gradient))
        return by_product, gradients


def moving(norm: nn.BatchNorm1d) -> tuple:
    """Return how the running statistics of a batch normalisation move, as `normalise` takes it."""
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked.view(1))
    return np.float32(norm.momentum), np.float32(norm.eps), tuple(map(array, running))
