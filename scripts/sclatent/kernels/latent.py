"""Diagonal normal distributions: parameters, a sample, divergence from the standard one, density.

Letters for shapes: B cells, L latent dimensions.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sclatent.kernels.arithmetic import ONE, kernel
from sclatent.kernels.operators import array

HALF = np.float32(0.5)
LOG_TWO_PI = np.float32(1.8378770664093453)


@kernel
def spread_out(mean, bias, spread, log_bias, floor, variance):
    """Add the biases to mean and log variance, whose exp stays in `spread`; fill the variance."""
    for b in range(len(mean)):
        for d in range(mean.shape[1]):
            mean[b, d] += bias[d]
            spread[b, d] = np.exp(spread[b, d] + log_bias[d])
            variance[b, d] = spread[b, d] + floor


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


@kernel
def density(x, mean, variance, log_p):
    """Fill the log density of each row, (B,)."""
    for b in range(len(mean)):
        whole = np.float32(0)
        for d in range(mean.shape[1]):
            difference, v = x[b, d] - mean[b, d], variance[b, d]
            whole += LOG_TWO_PI + np.log(v) + difference * difference / v
        log_p[b] = -HALF * whole


@kernel
def density_back(by_log_p, x, mean, variance, by_x, by_mean, by_variance):
    """Fill the gradients by x, mean and variance, (B, L)."""
    for b in range(len(mean)):
        for d in range(mean.shape[1]):
            one_over = ONE / variance[b, d]
            score = (x[b, d] - mean[b, d]) * one_over
            by_mean[b, d] = by_log_p[b] * score
            by_x[b, d] = -by_mean[b, d]
            by_variance[b, d] = by_log_p[b] * HALF * (score * score - one_over)


class NormalDraw(Function):
    """A sample, (B, L), and its divergence from the standard normal distribution, (B,)."""

    @staticmethod
    def forward(ctx, mean, variance, noise):
        """Return both."""
        ctx.given = [array(x) for x in (mean, variance, noise)]
        z, divergence = np.empty(mean.shape, np.float32), np.empty(len(mean), np.float32)
        draw(*ctx.given, z, divergence)
        return torch.from_numpy(z), torch.from_numpy(divergence)

    @staticmethod
    @once_differentiable
    def backward(ctx, by_z, by_divergence):
        """Return the gradients by mean and variance."""
        by_z = array(by_z.contiguous())
        by_mean, by_variance = np.empty_like(by_z), np.empty_like(by_z)
        draw_back(by_z, array(by_divergence.contiguous()), *ctx.given, by_mean, by_variance)
        return torch.from_numpy(by_mean), torch.from_numpy(by_variance), None


class NormalDensity(Function):
    """The log density of a diagonal normal distribution, (B,)."""

    @staticmethod
    def forward(ctx, x, mean, variance):
        """Return it."""
        ctx.given = [array(given) for given in (x, mean, variance)]
        log_p = np.empty(len(x), np.float32)
        density(*ctx.given, log_p)
        return torch.from_numpy(log_p)

    @staticmethod
    @once_differentiable
    def backward(ctx, by_log_p):
        """Return the gradients by x, mean and variance."""
        found = np.empty((3, *ctx.given[0].shape), np.float32)
        density_back(array(by_log_p.contiguous()), *ctx.given, *found)
        return tuple(torch.from_numpy(found))


class NormalHeads(Function):
    """Mean and variance of a diagonal normal distribution from a hidden state, (B, L) each."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, log_weight, log_bias, floor):
        """Return both; the variance is exp(.) plus a floor."""
        hidden, weight, log_weight = map(array, (hidden, weight, log_weight))
        mean, spread = np.dot(hidden, weight.T), np.dot(hidden, log_weight.T)
        variance = np.empty_like(mean)
        spread_out(mean, array(bias), spread, array(log_bias), np.float32(floor), variance)
        ctx.given = hidden, weight, log_weight, spread
        return torch.from_numpy(mean), torch.from_numpy(variance)

    @staticmethod
    @once_differentiable
    def backward(ctx, by_mean, by_variance):
        """Return the gradients by hidden state, weights and biases."""
        hidden, weight, log_weight, spread = ctx.given
        by_mean, by_log = array(by_mean), array(by_variance) * spread
        by_hidden = np.dot(by_mean, weight)
        by_hidden += np.dot(by_log, log_weight)
        by_weights = [np.dot(by.T, hidden) for by in (by_mean, by_log)]
        by_biases = [by.sum(0) for by in (by_mean, by_log)]
        found = (by_hidden, by_weights[0], by_biases[0], by_weights[1], by_biases[1])
        return *map(torch.from_numpy, found), None


def normal_heads(
    hidden: Tensor, mean: nn.Linear, log_variance: nn.Linear, floor: float
) -> tuple[Tensor, Tensor]:
    """Return mean(hidden) and exp(log_variance(hidden)) + floor, (B, L) each."""
    weights = (mean.weight, mean.bias, log_variance.weight, log_variance.bias)
    return NormalHeads.apply(hidden, *weights, floor)


def normal_draw(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sample (B, L) and KL(N(mean, variance) || N(0, I)), (B,)."""
    return NormalDraw.apply(mean, variance, torch.randn_like(mean))


def normal_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the log density of each row of `x`, (B, L), in nats, (B,)."""
    return NormalDensity.apply(x, mean, variance)
