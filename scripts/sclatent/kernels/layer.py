"""A hidden layer: linear map, batch normalisation, ReLU and dropout as one operator.

Letters for shapes: B cells, H hidden units.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.arithmetic import ONE, kernel

ZERO = np.float32(0)


@kernel
def random_bits(seed, place):
    """Return 32 random bits for a place in a stream (the finaliser of MurmurHash3)."""
    x = np.uint32(np.uint32(place) * np.uint32(0x9E3779B9) + np.uint32(seed))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ np.uint32(x >> np.uint32(16)))


@kernel
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


@kernel
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


@kernel
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


class Layer(Function):
    """A linear map of `x` and columns beside it, batch normalisation, ReLU and dropout, (B, H).

    One operator for four: at small minibatches most of the time goes into the number of operators.
    Without a weight, `x` is mapped already.
    """

    @staticmethod
    def forward(ctx, x, columns, weight, bias, gamma, beta, norm, probability):
        """Return the outcome, and move the running statistics of `norm`."""
        ctx.mapped = weight is None
        whole = x if columns is None else torch.cat([x, columns], 1)
        value = (x if ctx.mapped else torch.addmm(bias, whole, weight.t())).contiguous()
        mean, one_over_sd = torch.empty(value.shape[1]), torch.empty(value.shape[1])
        arrays = (value, norm.running_mean, norm.running_var, mean, one_over_sd)
        of_value, *rest = (tensor.detach().numpy() for tensor in arrays)
        moments(of_value, np.float32(norm.momentum), np.float32(norm.eps), *rest)
        normal, kept, out = (torch.empty_like(value) for _ in range(3))
        threshold, factor = np.uint32(probability * 2**32), np.float32(1 / (1 - probability))
        seed = int(torch.empty((), dtype=torch.int64).random_(2**32)) if probability else 0
        affine = (gamma.detach().numpy(), beta.detach().numpy(), *rest[2:])
        into = (normal.numpy(), kept.numpy(), out.numpy())
        activate(of_value, *affine, threshold, factor, np.uint32(seed), *into)
        ctx.width = x.shape[1]
        ctx.save_for_backward(whole, weight, gamma, normal, kept, one_over_sd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Return the gradients by input, columns (None), weight, bias, gamma and beta."""
        whole, weight, gamma, normal, kept, one_over_sd = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_gamma, by_beta = torch.empty_like(gamma), torch.empty_like(gamma)
        by_value = torch.empty_like(gradient)
        arrays = (gradient, normal, kept, gamma, one_over_sd, by_gamma, by_beta, by_value)
        activate_back(*(tensor.detach().numpy() for tensor in arrays))
        if ctx.mapped:
            return by_value, None, None, None, by_gamma, by_beta, None, None
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = torch.mm(by_value, weight[:, : ctx.width])
        by_weight = torch.mm(by_value.t(), whole)
        return by_x, None, by_weight, by_value.sum(0), by_gamma, by_beta, None, None


def layer(
    x: Tensor, columns: Tensor | None, linear: nn.Linear | None, norm: nn.BatchNorm1d, p: float
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
    norm.num_batches_tracked.add_(1)
    weight, bias = (None, None) if linear is None else (linear.weight, linear.bias)
    return Layer.apply(x, columns, weight, bias, norm.weight, norm.bias, norm, p)
