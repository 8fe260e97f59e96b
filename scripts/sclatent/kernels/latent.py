"""Diagonal normal distributions: their parameters, a sample, the divergence from the standard one.

Letters for shapes: B cells, L latent dimensions.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.arithmetic import ONE, kernel

HALF = np.float32(0.5)


@kernel
def draw(mean, variance, noise, z, divergence):
    """Fill mean + sd noise, (B, L), and KL(N(mean, variance) || N(0, I)), (B,)."""
    for b in range(len(mean)):
        whole = np.float32(0)
        for d in range(mean.shape[1]):
            m, v = mean[b, d], variance[b, d]
            z[b, d] = m + np.sqrt(v) * noise[b, d]
            whole += v + m * m - ONE - np.log(v)
        divergence[b] = HALF * whole


@kernel
def draw_back(by_z, by_divergence, mean, variance, noise, by_mean, by_variance):
    """Fill the gradients by mean and variance, (B, L)."""
    for b in range(len(mean)):
        for d in range(mean.shape[1]):
            g, k, v = by_z[b, d], by_divergence[b], variance[b, d]
            by_mean[b, d] = g + k * mean[b, d]
            by_variance[b, d] = HALF * (g * noise[b, d] / np.sqrt(v) + k * (ONE - ONE / v))


class NormalDraw(Function):
    """A sample, (B, L), and its divergence from the standard normal distribution, (B,)."""

    @staticmethod
    def forward(ctx, mean, variance, noise):
        """Return both."""
        z, divergence = torch.empty_like(mean), torch.empty(len(mean))
        draw(*(x.detach().numpy() for x in (mean, variance, noise, z, divergence)))
        ctx.save_for_backward(mean, variance, noise)
        return z, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx, by_z, by_divergence):
        """Return the gradients by mean and variance."""
        by_mean, by_variance = torch.empty_like(by_z), torch.empty_like(by_z)
        arrays = (by_z, by_divergence, *ctx.saved_tensors, by_mean, by_variance)
        draw_back(*(x.detach().contiguous().numpy() for x in arrays))
        return by_mean, by_variance, None


class NormalHeads(Function):
    """Mean and variance of a diagonal normal distribution from a hidden state, (B, L) each."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, log_weight, log_bias, floor):
        """Return both; the variance is exp(.) plus a floor."""
        spread = torch.addmm(log_bias, hidden, log_weight.t()).exp_()
        ctx.save_for_backward(hidden, weight, log_weight, spread)
        return torch.addmm(bias, hidden, weight.t()), spread + floor

    @staticmethod
    @once_differentiable
    def backward(ctx, by_mean, by_variance):
        """Return the gradients by hidden state, weights and biases."""
        hidden, weight, log_weight, spread = ctx.saved_tensors
        by_log = by_variance * spread
        by_hidden = torch.addmm(torch.mm(by_mean, weight), by_log, log_weight)
        by_weights = (torch.mm(by_mean.t(), hidden), by_mean.sum(0))
        return by_hidden, *by_weights, torch.mm(by_log.t(), hidden), by_log.sum(0), None


def normal_heads(
    hidden: Tensor, mean: nn.Linear, log_variance: nn.Linear, floor: float
) -> tuple[Tensor, Tensor]:
    """Return mean(hidden) and exp(log_variance(hidden)) + floor, (B, L) each."""
    weights = (mean.weight, mean.bias, log_variance.weight, log_variance.bias)
    return NormalHeads.apply(hidden, *weights, floor)


def normal_draw(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sample (B, L) and KL(N(mean, variance) || N(0, I)), (B,)."""
    return NormalDraw.apply(mean, variance, torch.randn_like(mean))
