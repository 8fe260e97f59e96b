"""Distributions of counts, evaluated where the counts are.

Letters for shapes: B cells of a minibatch, G genes, N non-zero counts of the minibatch.

Nine of ten counts are zero, and log p(0) needs no gamma function. So each log-likelihood is the
value for a zero at all B x G places, plus a correction at the N non-zero ones. Rates and
dispersions enter as logarithms, which keeps every term finite for theta from 1e-4 to 1e6.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_FACTORIALS = torch.lgamma(torch.arange(1.0, 1025.0, dtype=torch.float64))
"""log x! for x from 0 to 1023."""


class Entries(NamedTuple):
    """The non-zero counts of a minibatch."""

    place: Tensor  # (N,) int64, row * G + column
    gene: Tensor  # (N,) int64
    value: Tensor  # (N,) float32, > 0


def negative_binomial(entries: Entries, log_rate: Tensor, log_theta: Tensor) -> Tensor:
    """Return the negative binomial log-likelihood of a minibatch, summed over cells and genes.

    With mean mu and inverse dispersion theta (variance mu + mu^2 / theta)::

        log p(x) = theta log(theta / (theta + mu)) + x log(mu / (theta + mu))
                   + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)

    Parameters
    ----------
    entries
        The non-zero counts.
    log_rate
        log mu, (B, G).
    log_theta
        log theta, (G,), or (B, G) where it depends on the cell.

    Returns
    -------
    Tensor
        A scalar, in nats.
    """
    zeros = nb_zero(log_rate, log_theta)
    return zeros.sum() + nb_correction(entries, log_rate, log_theta).sum()


def zero_inflated_negative_binomial(
    entries: Entries, log_rate: Tensor, log_theta: Tensor, dropout_logit: Tensor
) -> Tensor:
    """Return the log-likelihood of a negative binomial with extra zeros, summed over a minibatch.

    A count is zero with probability pi = sigmoid(`dropout_logit`), else it is drawn from the
    negative binomial of `negative_binomial`.

    Parameters
    ----------
    entries, log_rate, log_theta
        As for `negative_binomial`.
    dropout_logit
        (B, G).
    """
    zero = nb_zero(log_rate, log_theta)  # (B, G)
    none = softplus(-dropout_logit)  # -log pi, (B, G)
    here = softplus(zero - dropout_logit) - none  # log p(0), (B, G)
    place = entries.place
    kept = -(dropout_logit + none).view(-1)[place] + zero.view(-1)[place]  # (N,)
    counted = kept + nb_correction(entries, log_rate, log_theta)
    return here.sum() - here.view(-1)[place].sum() + counted.sum()


def poisson(entries: Entries, log_rate: Tensor) -> Tensor:
    """Return the Poisson log-likelihood of a minibatch, summed over cells and genes, in nats.

    Parameters
    ----------
    entries
        The non-zero counts.
    log_rate
        log mu, (B, G).
    """
    x, log_mu = entries.value, log_rate.reshape(-1)[entries.place]
    return (x * log_mu - log_factorial(x)).sum().float() - log_rate.exp().sum()


def nb_zero(log_rate: Tensor, log_theta: Tensor) -> Tensor:
    """Return log p(0) of the negative binomial, (B, G): theta log(theta / (theta + mu))."""
    return -log_theta.exp() * softplus(log_rate - log_theta)


def nb_correction(entries: Entries, log_rate: Tensor, log_theta: Tensor) -> Tensor:
    """Return log p(x) - log p(0) of the negative binomial at the non-zero counts, (N,).

    The difference of the gamma functions cancels for large theta; it is taken in float64.
    """
    x, each = entries.value, entries.gene
    if log_theta.dim() == 2:
        log_theta, each = log_theta.reshape(-1)[entries.place], slice(None)
    log_mu = log_rate.reshape(-1)[entries.place]
    power = x * (log_mu - torch.logaddexp(log_mu, log_theta[each]))
    theta = log_theta.double().exp()
    gammas = torch.lgamma(x + theta[each]) - torch.lgamma(theta)[each] - log_factorial(x)
    return power + gammas.float()


def log_factorial(x: Tensor) -> Tensor:
    """Return log x! of whole numbers, (N,) float64; small ones are looked up."""
    values = LOG_FACTORIALS.to(x.device)[x.clamp(max=len(LOG_FACTORIALS) - 1).long()]
    large = x >= len(LOG_FACTORIALS)
    if large.any():
        values[large] = torch.lgamma(x[large].double() + 1)
    return values


def dispersion_from_moments(counts, library_size) -> Tensor:
    """Estimate log theta of each gene from its mean and variance, given the cells' library sizes.

    For x ~ NB(l s, theta) with library size l and gene share s, the excess of the variance over
    the mean is (l s)^2 / theta. Twice the estimate is returned, since the decoder will explain
    a part of the excess by differences between cells.

    Parameters
    ----------
    counts
        CSR matrix, (n_cells, G).
    library_size
        (n_cells,).

    Returns
    -------
    Tensor
        (G,), between log 0.05 and log 100.
    """
    import numpy as np

    total = library_size.sum()
    share = np.asarray(counts.sum(0)).ravel() / total  # (G,)
    squares = np.asarray(counts.multiply(counts).sum(0)).ravel()
    expected = share**2 * np.square(library_size).sum()
    excess = squares - expected - share * total
    theta = expected / np.maximum(excess, 1e-8 + expected / 50)
    return torch.from_numpy(np.log(2 * np.clip(theta, 0.025, 50))).float()
