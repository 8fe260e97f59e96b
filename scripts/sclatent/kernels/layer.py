"""Batch normalisation, ReLU and dropout of a hidden layer in one pass each way.

Letters for shapes: B cells, H hidden units.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.arithmetic import FAST, ONE

ZERO = np.float32(0)


@njit(**FAST)
def random_bits(seed, place):
    """Return 32 random bits for a place in a stream (the finaliser of MurmurHash3)."""
    x = np.uint32(np.uint32(place) * np.uint32(0x9E3779B9) + np.uint32(seed))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@njit(**FAST)
def moments(x, momentum, eps, running_mean, running_variance, mean, one_over_sd):
    """Fill mean and 1 / sd of each column, (H,) each, and move the running statistics."""
    n, width = x.shape
    mean[:] = ZERO
    one_over_sd[:] = ZERO
    for b in range(n):
        for h in range(width):
            mean[h] += x[b, h]
    for h in range(width):
        mean[h] /= np.float32(n)
    for b in range(n):
        for h in range(width):
            difference = x[b, h] - mean[h]
            one_over_sd[h] += difference * difference
    for h in range(width):
        variance = one_over_sd[h] / np.float32(n)
        unbiased = one_over_sd[h] / np.float32(n - 1)
        running_mean[h] += momentum * (mean[h] - running_mean[h])
        running_variance[h] += momentum * (unbiased - running_variance[h])
        one_over_sd[h] = ONE / np.sqrt(variance + eps)


@njit(**FAST)
def activate(x, weight, bias, mean, one_over_sd, threshold, factor, seed, normal, kept, out):
    """Fill the normalised values, what of them passes ReLU and dropout, and the outcome, (B, H).

    `kept` holds the factor of each value: 0, or 1 over the probability to be kept. NaN times 0 is
    NaN: a broken weight is seen in the loss. Short loops over few arrays, as the compiler must see
    that these do not overlap.
    """
    n, width = x.shape
    for b in range(n):
        for h in range(width):
            normal[b, h] = (x[b, h] - mean[h]) * one_over_sd[h]
        for h in range(width):
            out[b, h] = normal[b, h] * weight[h] + bias[h]
        for h in range(width):
            drawn = random_bits(seed, b * width + h) >= threshold
            kept[b, h] = factor if drawn and out[b, h] > ZERO else ZERO
        for h in range(width):
            out[b, h] *= kept[b, h]


@njit(**FAST)
def activate_back(gradient, normal, kept, weight, one_over_sd, by_weight, by_bias, by_x):
    """Fill the gradients by weight and bias, (H,) each, and by the input, (B, H)."""
    n, width = gradient.shape
    by_weight[:] = ZERO
    by_bias[:] = ZERO
    for b in range(n):
        for h in range(width):
            by_x[b, h] = gradient[b, h] * kept[b, h]
        for h in range(width):
            by_bias[h] += by_x[b, h]
            by_weight[h] += by_x[b, h] * normal[b, h]
    one_over_n = ONE / np.float32(n)
    for b in range(n):
        for h in range(width):
            rest = by_x[b, h] - (by_bias[h] + normal[b, h] * by_weight[h]) * one_over_n
            by_x[b, h] = weight[h] * one_over_sd[h] * rest


class Activation(Function):
    """Batch normalisation with the statistics of the minibatch, ReLU, and dropout, (B, H)."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, one_over_sd, probability, seed):
        """Return the outcome."""
        normal, kept, out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        threshold, factor = np.uint32(probability * 2**32), np.float32(1 / (1 - probability))
        arrays = [t.detach().numpy() for t in (x, weight, bias, mean, one_over_sd)]
        into = (normal.numpy(), kept.numpy(), out.numpy())
        activate(*arrays, threshold, factor, np.uint32(seed), *into)
        ctx.save_for_backward(normal, kept, weight, one_over_sd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients by input, weight and bias."""
        normal, kept, weight, one_over_sd = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_weight, by_bias = torch.empty_like(weight), torch.empty_like(weight)
        by_x = torch.empty_like(gradient)
        arrays = (gradient, normal, kept, weight, one_over_sd, by_weight, by_bias, by_x)
        activate_back(*(t.detach().numpy() for t in arrays))
        return by_x, by_weight, by_bias, None, None, None, None


def activation(norm: nn.BatchNorm1d, x: Tensor, probability: float) -> Tensor:
    """Return dropout(relu(norm(x))) of a minibatch in training, (B, H).

    Parameters
    ----------
    norm
        Its weight and bias are learnt; its running statistics follow.
    x
        (B, H), B > 1.
    probability
        Of a value to be dropped. The seed of what is dropped comes from torch's generator.
    """
    x = x.contiguous()
    mean, one_over_sd = torch.empty(x.shape[1]), torch.empty(x.shape[1])
    arrays = (x, norm.running_mean, norm.running_var, mean, one_over_sd)
    values, *rest = (tensor.detach().numpy() for tensor in arrays)
    moments(values, np.float32(norm.momentum), np.float32(norm.eps), *rest)
    norm.num_batches_tracked.add_(1)
    seed = int(torch.empty((), dtype=torch.int64).random_(2**32)) if probability else 0
    return Activation.apply(x, norm.weight, norm.bias, mean, one_over_sd, probability, seed)
