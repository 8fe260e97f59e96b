"""A hidden layer: linear map, batch normalisation, ReLU and dropout as one operator.

At small minibatches most of the time would go into the number of operators. Between them, arrays
are NumPy's: to make, slice and hand one over takes a fraction of what it takes PyTorch.

Letters for shapes: B cells, H hidden units, C columns beside the input.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.arithmetic import ONE, kernel, widen
from sclatent.kernels.operators import Rows, array

ZERO = np.float32(0)


@kernel
def random_bits(seed, place):
    """Return 32 random bits for a place in a stream (the finaliser of MurmurHash3)."""
    x = np.uint32(np.uint32(place) * np.uint32(0x9E3779B9) + np.uint32(seed))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@kernel
def normalise(x, shift, momentum, eps, running, normal, mean, one_over_sd):
    """Fill the normalised values of x + shift, (B, H), and mean and 1 / sd of each column, (H,).

    `running` is the running mean and variance, and how often they moved; they move.
    """
    n, width = x.shape
    running_mean, running_variance, n_seen = running
    n_seen[0] += 1
    mean[:] = ZERO
    one_over_sd[:] = ZERO
    for b in range(n):
        for h in range(width):
            normal[b, h] = widen(x[b, h]) + shift[h]
        for h in range(width):
            mean[h] += normal[b, h]
    for h in range(width):
        mean[h] /= np.float32(n)
    for b in range(n):
        for h in range(width):
            normal[b, h] -= mean[h]
            one_over_sd[h] += normal[b, h] * normal[b, h]
    for h in range(width):
        variance = one_over_sd[h] / np.float32(n)
        unbiased = one_over_sd[h] / np.float32(n - 1)
        running_mean[h] += momentum * (mean[h] - running_mean[h])
        running_variance[h] += momentum * (unbiased - running_variance[h])
        one_over_sd[h] = ONE / np.sqrt(variance + eps)
    for b in range(n):
        for h in range(width):
            normal[b, h] *= one_over_sd[h]


@kernel
def activate(normal, weight, bias, threshold, factor, seed, out):
    """Fill what of the scaled values passes ReLU and dropout, times `factor`, (B, H).

    NaN times 0 is NaN: a broken weight is seen in the loss. Short loops over few arrays, as the
    compiler must see that these do not overlap.
    """
    n, width = normal.shape
    for b in range(n):
        for h in range(width):
            out[b, h] = normal[b, h] * weight[h] + bias[h]
        for h in range(width):
            drawn = random_bits(seed, b * width + h) >= threshold
            out[b, h] *= factor if drawn and out[b, h] > ZERO else ZERO


@kernel
def activate_back(gradient, normal, out, factor, weight, one_over_sd, sums, by_x):
    """Fill the gradients by weight, bias and shift, (3, H), and by the input, (B, H).

    A gradient passes where the value did: where the outcome is above 0.
    """
    n, width = gradient.shape
    by_weight, by_bias, by_shift = sums[0], sums[1], sums[2]
    sums[:] = ZERO
    for b in range(n):
        for h in range(width):
            by_x[b, h] = gradient[b, h] * (factor if out[b, h] > ZERO else ZERO)
        for h in range(width):
            by_bias[h] += by_x[b, h]
            by_weight[h] += by_x[b, h] * normal[b, h]
    one_over_n = ONE / np.float32(n)
    for b in range(n):
        for h in range(width):
            rest = by_x[b, h] - (by_bias[h] + normal[b, h] * by_weight[h]) * one_over_n
            by_x[b, h] = weight[h] * one_over_sd[h] * rest
        for h in range(width):
            by_shift[h] += by_x[b, h]


class Beside:
    """A matrix, (B, n), and columns at its side, (B, C) or None, that are multiplied together."""

    def __init__(self, x: Tensor, columns: Tensor | None):
        self.width, self.whole = x.shape[1], array(x)
        if columns is not None:
            self.whole = np.concatenate([self.whole, array(columns)], 1)

    def times(self, weight: Tensor) -> np.ndarray:
        """Return the product with a weight (H, n + C), (B, H)."""
        return np.dot(self.whole, array(weight).T)

    def by_weight(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the weight from that of the product."""
        return torch.from_numpy(np.dot(gradient.numpy().T, self.whole))

    def by_x(self, gradient: np.ndarray, weight: Tensor) -> Tensor:
        """Return the gradient by the matrix."""
        return torch.from_numpy(np.dot(gradient, array(weight)[:, : self.width]))


class Layer(Function):
    """A linear map of `inputs`, batch normalisation, ReLU and dropout, (B, H).

    `inputs` holds the values of `x` that are multiplied; without a weight, `x` is mapped already.
    """

    @staticmethod
    def forward(ctx, x, inputs, weight, bias, gamma, beta, norm, probability):
        """Return the outcome, and move the running statistics of `norm`."""
        value = array(x) if weight is None else inputs.times(weight)
        shape, width = value.shape, value.shape[1]
        normal, out = np.empty(shape, np.float32), np.empty(shape, np.float32)
        mean, one_over_sd = np.empty(width, np.float32), np.empty(width, np.float32)
        shift = np.zeros(width, np.float32) if bias is None else array(bias)
        running = (norm.running_mean, norm.running_var, norm.num_batches_tracked.view(1))
        moving = (np.float32(norm.momentum), np.float32(norm.eps), tuple(map(array, running)))
        normalise(value, shift, *moving, normal, mean, one_over_sd)
        threshold, factor = np.uint32(probability * 2**32), np.float32(1 / (1 - probability))
        seed = int(torch.empty((), dtype=torch.int64).random_(2**32)) if probability else 0
        scale = array(gamma)
        activate(normal, scale, array(beta), threshold, factor, np.uint32(seed), out)
        ctx.inputs, ctx.weight, ctx.kept = inputs, weight, (normal, out, factor, scale, one_over_sd)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients by x, inputs (None), weight, bias, gamma and beta."""
        gradient = array(gradient.contiguous())
        by_value, sums = np.empty_like(gradient), np.empty((3, gradient.shape[1]), np.float32)
        activate_back(gradient, *ctx.kept, sums, by_value)
        by_gamma, by_beta, by_bias = torch.from_numpy(sums)
        if ctx.weight is None:
            return torch.from_numpy(by_value), None, None, None, by_gamma, by_beta, None, None
        by_x = ctx.inputs.by_x(by_value, ctx.weight) if ctx.needs_input_grad[0] else None
        by_weight = ctx.inputs.by_weight(torch.from_numpy(by_value))
        return by_x, None, by_weight, by_bias, by_gamma, by_beta, None, None


def layer(
    x: Tensor | Rows,
    columns: Tensor | None,
    linear: nn.Linear | None,
    norm: nn.BatchNorm1d,
    p: float,
) -> Tensor:
    """Return dropout(relu(norm(linear([x, columns])))) of a minibatch in training, (B, H).

    Parameters
    ----------
    x
        (B, n), B > 1; where `linear` is None (B, H), mapped already.
    columns
        (B, C) beside it, which get no gradient; None for none.
    linear, norm
        The layers; the running statistics of `norm` follow.
    p
        Probability of a value to be dropped. The seed of what is dropped comes from torch's
        generator.
    """
    if isinstance(x, Rows):
        x, inputs = None, x if columns is None else x.beside(columns)
    else:
        inputs = None if linear is None else Beside(x, columns)
    weight, bias = (None, None) if linear is None else (linear.weight, linear.bias)
    return Layer.apply(x, inputs, weight, bias, norm.weight, norm.bias, norm, p)
