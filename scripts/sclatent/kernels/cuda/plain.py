"""The same two ends in plain torch: what the kernels are held to, and what runs without a GPU.

The likelihood is evaluated at all places in float64, so that its shapes do not depend on the data.

Letters for shapes: B cells, G genes.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from sclatent.kernels.cuda.kinds import LOG_MEAN, Kind, Terms
from sclatent.kernels.cuda.rows import DeviceRows, Gathered, Standard, empty, widen


def gather(
    source: DeviceRows, rows: Tensor, standard: Standard | None = None, dtype=torch.float32
) -> Gathered:
    """Return the counts of some cells as matrices; see `operators.gather`."""
    counts, inputs, _ = empty(source, rows, standard, dtype)
    library_size = source.library_size[rows]
    starts, lengths = source.indptr[rows], source.indptr[rows + 1] - source.indptr[rows]
    cell = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    before = lengths.cumsum(0) - lengths
    place = torch.arange(len(cell)) + (starts - before)[cell]
    gene, value = widen(source.genes[place]).long(), source.values[place]
    counts[cell, gene] = value
    x = widen(value).float()
    if standard is None:
        logs = torch.log1p(x)
    else:
        logs = torch.log1p(x * standard.unit / library_size[cell])
        logs = (logs - standard.mean[gene]) / standard.sd[gene]
    inputs[cell, gene] = logs.to(dtype)
    return Gathered(counts, inputs, library_size)


def log_likelihood(kind: Kind, counts: Tensor, terms: Terms) -> Tensor:
    """Return log p(x) of each cell, (B,); see `operators.log_likelihood`."""
    x = widen(counts).double()
    log_rate = log_rates(kind, terms)
    if kind.theta == "none":
        values = x * log_rate - log_rate.exp() - torch.lgamma(x + 1)
        return values.sum(1).float()
    log_theta = log_thetas(kind, terms)
    theta, difference = log_theta.exp(), log_rate - log_theta
    gamma = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    values = x * logsigmoid(difference) - theta * softplus(difference) + gamma
    if kind.zero_inflated:
        pi = with_bias(terms.pi, terms.pi_bias)
        zero = softplus(values - pi) - softplus(-pi)
        values = torch.where(x == 0, zero, values + logsigmoid(-pi))
    return values.sum(1).float()


def log_rates(kind: Kind, terms: Terms) -> Tensor:
    """Return log mu, (B, G) float64."""
    logits = with_bias(terms.logits, terms.bias)
    log_mean = logits.log_softmax(1) if kind.mean == "softmax" else logits.clamp(*LOG_MEAN)
    return log_mean + terms.log_library[:, None]


def log_thetas(kind: Kind, terms: Terms) -> Tensor:
    """Return log theta, (G,) or (B, G) float64."""
    value = with_bias(terms.theta, terms.theta_bias)
    if terms.theta_row is not None:
        value = value[terms.theta_row]
    if kind.theta == "clamped":
        return value.clamp(kind.lowest, kind.highest)
    if kind.theta == "softplus":
        return softplus(value).clamp(kind.lowest, kind.highest).log()
    return value


def with_bias(logits: Tensor, bias: Tensor | None) -> Tensor:
    """Return logits in float64 with their bias."""
    return logits.double() if bias is None else logits.double() + bias
