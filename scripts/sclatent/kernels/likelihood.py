"""The log-likelihood of counts and its gradient, in one pass over each cell.

A cell passes through stages that each are a loop over the genes: from logits to rates, the value of
a zero everywhere, the values of the counts where there are any, and back to the gradients of the
logits. Its row of 2000 genes stays in the fastest cache meanwhile. The formulas are those of
`models/likelihoods.py`. Zeros and counts up to 8 are evaluated in float32, larger ones in float64,
since large terms cancel there.

With mu the rate, theta the inverse dispersion and x the count, the derivatives of log p are::

    NB       by log mu     theta (x - mu) / (theta + mu)
             by log theta  theta (psi(x + theta) - psi(theta) - log1p(mu / theta)
                                  + (mu - x) / (theta + mu))
    Poisson  by log mu     x - mu

Letters for shapes: B cells, G genes, R rows of a table of thetas.
"""

import math
from typing import NamedTuple

import numpy as np

from sclatent.kernels.arithmetic import (
    ONE,
    clip,
    exp,
    kernel,
    largest,
    log,
    softplus_and_slope,
    store,
    total,
    widen,
)

SOFTMAX, EXPONENTIAL = 0, 1
"""How logits become rates: as shares of the library size, or each by itself."""
POISSON, TABLE, LOG_THETA, SOFTPLUS_THETA = 0, 1, 2, 3
"""No theta; a table with a row for each cell; or thetas from logits, in two ways."""
LOWEST_MEAN, HIGHEST_MEAN = np.float32(math.log(1e-5)), np.float32(math.log(1e6))
"""Bounds of the log mean before the size factor, where rates are exponential."""
ZERO = np.float32(0)
FEW = 8
"""Up to this count lgamma(x + theta) - lgamma(theta) is the log of a product."""


class Modes(NamedTuple):
    """What the counts follow."""

    mean: int
    theta: int
    zero_inflated: bool


class Fields(NamedTuple):
    """What the rates, thetas and extra zeros are made from; empty arrays where there are none.

    Logits are (B, G), float32 or bfloat16 (as uint16), without their biases (G,).
    """

    logits: np.ndarray
    bias: np.ndarray
    theta_logits: np.ndarray
    theta_bias: np.ndarray
    pi_logits: np.ndarray
    pi_bias: np.ndarray
    table: np.ndarray  # thetas, (R, G)
    table_row: np.ndarray  # (B,)
    bounds: np.ndarray  # of log theta, or with a softplus of theta, (2,)
    log_library: np.ndarray  # (B,)


class Gradients(NamedTuple):
    """Where the gradients go; those of biases and table are sums over the cells, and added."""

    logits: np.ndarray  # (B, G), as those of `Fields`
    bias: np.ndarray
    theta_logits: np.ndarray
    theta_bias: np.ndarray
    pi_logits: np.ndarray
    pi_bias: np.ndarray
    table: np.ndarray  # by log theta, (R, G)
    log_library: np.ndarray  # (B,)


@kernel
def make_rates(mode, fields, cell, log_rate, rate):
    """Fill log mu and mu, (G,) each."""
    logits, bias, log_library = fields.logits, fields.bias, fields.log_library[cell]
    n_genes = len(rate)
    if mode == EXPONENTIAL:
        for g in range(n_genes):
            log_mean = clip(widen(logits[cell, g]) + bias[g], LOWEST_MEAN, HIGHEST_MEAN)
            log_rate[g] = log_mean + log_library
            rate[g] = exp(log_rate[g])
        return
    for g in range(n_genes):
        log_rate[g] = widen(logits[cell, g]) + bias[g]
    shift = largest(log_rate)
    for g in range(n_genes):
        rate[g] = exp(log_rate[g] - shift)
    whole = total(rate)
    factor = np.float32(math.exp(log_library)) / whole
    shift = log_library - shift - np.float32(math.log(whole))
    for g in range(n_genes):
        rate[g] *= factor
        log_rate[g] += shift


@kernel
def make_thetas(mode, fields, cell, theta):
    """Return theta, (G,): a row of the table, or `theta` filled."""
    logits, bias, bounds = fields.theta_logits, fields.theta_bias, fields.bounds
    if mode == LOG_THETA:
        for g in range(len(theta)):
            theta[g] = exp(clip(widen(logits[cell, g]) + bias[g], bounds[0], bounds[1]))
    elif mode == SOFTPLUS_THETA:
        for g in range(len(theta)):
            raw, _ = softplus_and_slope(widen(logits[cell, g]) + bias[g])
            theta[g] = clip(raw, bounds[0], bounds[1])
    else:
        return fields.table[fields.table_row[cell]]
    return theta


@kernel
def poisson_zeros(rate, value, by_rate):
    """Fill log p(0) and its derivative by log mu, (G,) each."""
    for g in range(len(rate)):
        value[g] = -rate[g]
        by_rate[g] = -rate[g]


@kernel
def nb_zeros(rate, theta, value, by_rate, by_theta, share, part):
    """Fill log p(0), its derivatives by log mu and log theta, theta / (theta + mu) and -log of it.

    All are (G,).
    """
    for g in range(len(rate)):
        ratio = rate[g] / theta[g]
        more = ONE + ratio
        share[g] = ONE / more
        part[g] = log(more) + (ratio - (more - ONE)) * share[g]
        value[g] = -theta[g] * part[g]
        by_rate[g] = -rate[g] * share[g]
        by_theta[g] = theta[g] * (ratio * share[g] - part[g])


@kernel
def make_pis(fields, cell, kept, not_extra):
    """Fill softplus(-l) and its slope, which is 1 - pi, for the logit l of extra zeros, (G,)."""
    for g in range(len(kept)):
        logit = widen(fields.pi_logits[cell, g]) + fields.pi_bias[g]
        kept[g], not_extra[g] = softplus_and_slope(-logit)


@kernel
def inflate_zeros(fields, cell, kept, not_extra, value, by_rate, by_theta, by_pi):
    """Turn log p(0) of counts into that with extra zeros, of logit l, and so the derivatives.

    It is softplus(log p(0) - l) - softplus(-l).
    """
    for g in range(len(value)):
        logit = widen(fields.pi_logits[cell, g]) + fields.pi_bias[g]
        # the slope is the probability that a zero is a count
        value[g], by_pi[g] = softplus_and_slope(value[g] - logit)
    for g in range(len(value)):
        value[g] -= kept[g]
        by_rate[g] *= by_pi[g]
        by_theta[g] *= by_pi[g]
        by_pi[g] = not_extra[g] - by_pi[g]


@kernel
def log_factorial(x, known):
    """Return log x!; small ones are looked up."""
    return known[x] if x < len(known) else math.lgamma(x + 1.0)


@kernel
def rising(x, theta):
    """Return lgamma(x + theta) - lgamma(theta) and psi(x + theta) - psi(theta), x > FEW.

    In float64: a product of `FEW` factors and, beyond, Stirling's series.
    """
    product, psi = 1.0, 0.0
    for k in range(FEW):
        product *= theta + k
        psi += 1.0 / (theta + k)
    gamma = math.log(product)
    for sign, y in ((1.0, theta + x), (-1.0, theta + FEW)):
        one_over, log_y = 1.0 / y, math.log(y)
        gamma += sign * ((y - 0.5) * log_y - y + one_over / 12 - one_over**3 / 360)
        psi += sign * (log_y - 0.5 * one_over - one_over**2 / 12 + one_over**4 / 120)
    return gamma, psi


@kernel
def few_nb(x, log_rate, rate, theta, share, part, log_x):
    """Return log p(x), 0 < x <= FEW, and its derivatives by log mu and log theta.

    lgamma(x + theta) - lgamma(theta) is x log theta plus the log of the product of 1 + k / theta;
    the sum of the inverses of these factors is one fraction.
    """
    value = np.float32(x) * (log_rate - part) - theta * part
    psi = ONE  # theta times psi(x + theta) - psi(theta)
    if x > 1:
        one_over, product = ONE / theta, ONE
        for k in range(1, x):
            factor = ONE + np.float32(k) * one_over
            psi = psi * factor + product
            product *= factor
        value += log(product) - log_x
        psi /= product
    by_theta = psi - theta * part + (rate - np.float32(x)) * share
    return value, (np.float32(x) - rate) * share, by_theta


@kernel
def many_nb(x, log_rate, theta, log_x):
    """Return the same as `few_nb` for x > FEW, evaluated in float64."""
    t, log_mu = np.float64(theta), np.float64(log_rate)
    mu = math.exp(log_mu)
    gamma, psi = rising(x, t)
    part = math.log1p(mu / t)
    value = x * (log_mu - math.log(t) - part) - t * part + gamma - log_x
    by_theta = t * (psi - part + (mu - x) / (t + mu))
    return np.float32(value), np.float32(t * (x - mu) / (t + mu)), np.float32(by_theta)


@kernel
def put_nb(block, known, cell, log_rate, rate, theta, share, part, value, by_rate, by_theta):
    """Replace values and derivatives of zeros by those of counts, where there are any."""
    indptr, genes, values = block
    for place in range(indptr[cell], indptr[cell + 1]):
        g, x = np.int64(genes[place]), np.int64(values[place])
        log_x = log_factorial(x, known)
        if x <= FEW:
            found = few_nb(x, log_rate[g], rate[g], theta[g], share[g], part[g], np.float32(log_x))
        else:
            found = many_nb(x, log_rate[g], theta[g], log_x)
        value[g], by_rate[g], by_theta[g] = found


@kernel
def put_poisson(block, known, cell, log_rate, rate, value, by_rate):
    """Do the same for Poisson counts."""
    indptr, genes, values = block
    for place in range(indptr[cell], indptr[cell + 1]):
        g, x = np.int64(genes[place]), np.int64(values[place])
        log_mu = np.float64(log_rate[g])
        value[g] = np.float32(x * log_mu - math.exp(log_mu) - log_factorial(x, known))
        by_rate[g] = np.float32(x) - rate[g]


@kernel
def put_counted(fields, block, cell, kept, not_extra, value, by_pi):
    """Add that a count is no extra zero: log(1 - pi) of logit l is -l - softplus(-l)."""
    indptr, genes, _ = block
    for place in range(indptr[cell], indptr[cell + 1]):
        g = np.int64(genes[place])
        value[g] -= widen(fields.pi_logits[cell, g]) + fields.pi_bias[g] + kept[g]
        by_pi[g] = not_extra[g] - ONE


@kernel
def give(gradient, cell, matrix, bias):
    """Write a cell's gradient (G,) into its row, and add it to that of the bias.

    Short loops over few arrays: the compiler must see that these do not overlap.
    """
    for g in range(len(gradient)):
        store(matrix, cell, g, gradient[g])
    for g in range(len(gradient)):
        bias[g] += gradient[g]


@kernel
def rates_gradient(mode, fields, cell, rate, by_rate, scale):
    """Turn the derivative by log mu into the gradient by the logits; return that by the library."""
    by_library = total(by_rate)
    if mode == SOFTMAX:
        per_rate = by_library / np.float32(math.exp(fields.log_library[cell]))
        for g in range(len(by_rate)):
            by_rate[g] = scale * (by_rate[g] - rate[g] * per_rate)
    else:
        for g in range(len(by_rate)):
            log_mean = widen(fields.logits[cell, g]) + fields.bias[g]
            inside = LOWEST_MEAN <= log_mean <= HIGHEST_MEAN
            by_rate[g] = scale * by_rate[g] if inside else ZERO
    return scale * by_library


@kernel
def thetas_gradient(mode, fields, cell, by_theta, scale):
    """Turn the derivative by log theta into the gradient by the logits, (G,)."""
    logits, bias = fields.theta_logits, fields.theta_bias
    lowest, highest = fields.bounds[0], fields.bounds[1]
    if mode == LOG_THETA:
        for g in range(len(by_theta)):
            logit = widen(logits[cell, g]) + bias[g]
            by_theta[g] = scale * by_theta[g] if lowest <= logit <= highest else ZERO
    else:
        for g in range(len(by_theta)):
            logit = widen(logits[cell, g]) + bias[g]
            theta, slope = softplus_and_slope(logit)
            gradient = scale * by_theta[g] * slope / theta
            by_theta[g] = gradient if lowest <= theta <= highest else ZERO


@kernel
def count_log_likelihood(modes, fields, block, known, scale, log_p, to):
    """Fill log p(x) of some cells, and their gradients where `scale` is not 0.

    Parameters
    ----------
    modes, fields
        A `Modes` and a `Fields`.
    block
        The counts of the cells: indptr (B + 1,), genes and values.
    known
        log x! of small x, float64.
    scale
        Multiplies every gradient: -1 / B gives that of the mean negative log-likelihood. With 0
        no gradient is taken.
    log_p
        (B,) float32.
    to
        A `Gradients`.
    """
    n_genes = fields.logits.shape[1]
    rows = np.empty((11, n_genes), np.float32)
    log_rate, rate, value, by_rate, by_theta = rows[0], rows[1], rows[2], rows[3], rows[4]
    by_pi, share, part, filled = rows[5], rows[6], rows[7], rows[8]
    kept, not_extra = rows[9], rows[10]
    for cell in range(len(log_p)):
        make_rates(modes.mean, fields, cell, log_rate, rate)
        theta = make_thetas(modes.theta, fields, cell, filled)
        if modes.theta == POISSON:
            poisson_zeros(rate, value, by_rate)
        else:
            nb_zeros(rate, theta, value, by_rate, by_theta, share, part)
        if modes.zero_inflated:
            make_pis(fields, cell, kept, not_extra)
            inflate_zeros(fields, cell, kept, not_extra, value, by_rate, by_theta, by_pi)
        if modes.theta == POISSON:
            put_poisson(block, known, cell, log_rate, rate, value, by_rate)
        else:
            put_nb(
                *(block, known, cell, log_rate, rate, theta),
                *(share, part, value, by_rate, by_theta),
            )
        if modes.zero_inflated:
            put_counted(fields, block, cell, kept, not_extra, value, by_pi)
        log_p[cell] = total(value)
        if scale == ZERO:
            continue
        to.log_library[cell] = rates_gradient(modes.mean, fields, cell, rate, by_rate, scale)
        give(by_rate, cell, to.logits, to.bias)
        if modes.theta == TABLE:
            table = to.table[fields.table_row[cell]]
            for g in range(n_genes):
                table[g] += scale * by_theta[g]
        elif modes.theta != POISSON:
            thetas_gradient(modes.theta, fields, cell, by_theta, scale)
            give(by_theta, cell, to.theta_logits, to.theta_bias)
        if modes.zero_inflated:
            for g in range(n_genes):
                by_pi[g] *= scale
            give(by_pi, cell, to.pi_logits, to.pi_bias)
