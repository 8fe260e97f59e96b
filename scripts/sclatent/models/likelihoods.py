"""Distributions of counts, evaluated where the counts are.

Letters for shapes: B cells of a minibatch, G genes, N non-zero counts of the minibatch.

Nine of ten counts are zero, and log p(0) needs no gamma function. So each log-likelihood is the
value for a zero at all B x G places, replaced at the N non-zero ones. Rates and dispersions enter
as logarithms, which keeps every term finite for theta from 1e-4 to 1e6. The N values are taken in
float64, since large terms cancel there. The result has the type of the parameters; autocast does
not lower it.

Every distribution has `log_prob(entries)`, which sums over the genes, `mean` and `sample()`. What
of log p(x) does not depend on the rate is `constant(entries)`. Unless it `varies` with the cell's
latent state, `log_prob` may be given that of another state.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from sclatent.data.compact import Moments

LOG_FACTORIALS = torch.lgamma(torch.arange(1.0, 1025.0, dtype=torch.float64))
"""log x! for x from 0 to 1023."""
LOG_TWO_PI = 1.8378770664093453


class Entries(NamedTuple):
    """The non-zero counts of a minibatch."""

    row: Tensor  # (N,) int64
    gene: Tensor  # (N,) int64
    value: Tensor  # (N,) float, > 0

    def of(self, matrix: Tensor) -> Tensor:
        """Return what stands at the non-zero counts of (B, G), (G,) or (B, 1); (N,) float64."""
        if matrix.dim() == 1:
            return matrix.double().index_select(0, self.gene)
        if matrix.shape[1] == 1:
            return matrix.double()[:, 0].index_select(0, self.row)
        return matrix.reshape(-1).index_select(0, self.places(matrix)).double()

    def places(self, matrix: Tensor) -> Tensor:
        """Return where the non-zero counts are in a flat (B, G), (N,)."""
        return self.row * matrix.shape[1] + self.gene

    def per_cell(self, values: Tensor, zeros: Tensor) -> Tensor:
        """Sum `values` (N,) over the genes where counts are, else `zeros` (B, G); (B,)."""
        sums = values.new_zeros(len(zeros)).index_add(0, self.row, values)
        elsewhere = SumElsewhere.apply(zeros, self.places(zeros))
        return elsewhere + sums.to(zeros.dtype)


class SumElsewhere(torch.autograd.Function):
    """The sums over the columns of a matrix (B, G) without the places (N,); (B,).

    To sum all and subtract would lose what is small beside log p(0) there. Written by hand, since
    autograd copies the gradient thrice for it.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor, places: Tensor) -> Tensor:
        """Return the sums."""
        ctx.save_for_backward(places)
        ctx.n_columns = matrix.shape[1]
        return matrix.reshape(-1).scatter(0, places, 0.0).view_as(matrix).sum(1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the matrix: that of the sums, and 0 at the places."""
        full = gradient[:, None].repeat(1, ctx.n_columns)
        full.view(-1).scatter_(0, ctx.saved_tensors[0], 0.0)
        return full, None


class Poisson(NamedTuple):
    """Counts with mean and variance mu."""

    log_rate: Tensor  # log mu, (B, G)

    def log_prob(self, entries: Entries, constant: Tensor | None = None) -> Tensor:
        """Return log p(x) of each cell in nats, (B,)."""
        log_rate = entries.of(self.log_rate)
        constant = self.constant(entries) if constant is None else constant
        counted = entries.value * log_rate - log_rate.exp() + constant
        return entries.per_cell(counted, -self.log_rate.exp())

    def constant(self, entries: Entries) -> Tensor:
        """Return -log x! at the non-zero counts, (N,) float64."""
        return -log_factorial(entries.value)

    @property
    def varies(self) -> bool:
        """Whether `constant` depends on the latent state."""
        return False

    @property
    def mean(self) -> Tensor:
        """The expected counts mu, (B, G)."""
        return self.log_rate.exp()

    def sample(self) -> Tensor:
        """Draw counts, (B, G)."""
        return torch.poisson(self.mean)


class NegativeBinomial(NamedTuple):
    """Counts with mean mu and variance mu + mu^2 / theta.

    With the inverse dispersion theta::

        log p(x) = theta log(theta / (theta + mu)) + x log(mu / (theta + mu))
                   + lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)
    """

    log_rate: Tensor  # log mu, (B, G)
    log_theta: Tensor  # (G,), (B, G) where it depends on the cell, (B, 1) where on nothing else

    def log_prob(self, entries: Entries, constant: Tensor | None = None) -> Tensor:
        """Return log p(x) of each cell in nats, (B,)."""
        return entries.per_cell(self.log_counted(entries, constant), self.log_zero())

    def log_zero(self) -> Tensor:
        """Return log p(0) = theta log(theta / (theta + mu)), (B, G)."""
        return -self.log_theta.exp() * softplus(self.log_rate - self.log_theta)

    def log_counted(self, entries: Entries, constant: Tensor | None = None) -> Tensor:
        """Return log p(x) at the non-zero counts, (N,) float64."""
        log_theta = entries.of(self.log_theta)
        theta, difference = log_theta.exp(), entries.of(self.log_rate) - log_theta
        power = (entries.value + theta) * logsigmoid(difference) - theta * difference
        return power + (self.coefficient(entries, theta) if constant is None else constant)

    def constant(self, entries: Entries) -> Tensor:
        """Return the log binomial coefficient at the non-zero counts, (N,) float64."""
        return self.coefficient(entries, entries.of(self.log_theta).exp())

    def coefficient(self, entries: Entries, theta: Tensor) -> Tensor:
        """Return `constant` given theta at the non-zero counts, (N,) float64."""
        x = entries.value
        if self.varies:
            gamma = torch.lgamma(theta)
        else:  # one gamma function per gene, not per count
            gamma = entries.of(torch.lgamma(self.log_theta.double().exp()))
        return torch.lgamma(x + theta) - (gamma + log_factorial(x))

    @property
    def varies(self) -> bool:
        """Whether `constant` may depend on the latent state, as theta does."""
        return self.log_theta.dim() > 1

    @property
    def mean(self) -> Tensor:
        """The expected counts mu, (B, G)."""
        return self.log_rate.exp()

    def sample(self) -> Tensor:
        """Draw counts, (B, G): a Poisson whose rate is drawn from a gamma distribution."""
        theta = self.log_theta.exp().expand_as(self.log_rate)
        rate = torch.distributions.Gamma(theta, theta / self.mean).sample()
        return torch.poisson(rate)


class ZeroInflatedNegativeBinomial(NamedTuple):
    """A negative binomial with extra zeros, of probability pi = sigmoid(`dropout_logit`)."""

    log_rate: Tensor  # log mu, (B, G)
    log_theta: Tensor  # as for the negative binomial
    dropout_logit: Tensor  # (B, G) or (B, 1)

    @property
    def counts(self) -> NegativeBinomial:
        """The distribution without the extra zeros."""
        return NegativeBinomial(self.log_rate, self.log_theta)

    def constant(self, entries: Entries) -> Tensor:
        """Return the log binomial coefficient at the non-zero counts, (N,) float64."""
        return self.counts.constant(entries)

    @property
    def varies(self) -> bool:
        """Whether `constant` may depend on the latent state, as theta does."""
        return self.counts.varies

    def log_prob(self, entries: Entries, constant: Tensor | None = None) -> Tensor:
        """Return log p(x) of each cell in nats, (B,)."""
        zero = self.counts.log_zero()  # (B, G)
        here = softplus(zero - self.dropout_logit) - softplus(-self.dropout_logit)  # log p(0)
        kept = logsigmoid(-entries.of(self.dropout_logit))  # log(1 - pi), (N,)
        return entries.per_cell(self.counts.log_counted(entries, constant) + kept, here)

    @property
    def mean(self) -> Tensor:
        """The expected counts mu before extra zeros, (B, G)."""
        return self.log_rate.exp()

    def sample(self) -> Tensor:
        """Draw counts, (B, G)."""
        kept = torch.bernoulli(torch.sigmoid(-self.dropout_logit).expand_as(self.log_rate))
        return kept * self.counts.sample()


class Normal(NamedTuple):
    """Values with unit variance around a mean: half the squared error, and a constant."""

    mean: Tensor  # (B, G)

    def log_prob(self, entries: Entries, constant: Tensor | None = None) -> Tensor:
        """Return log p(x) of each cell in nats, (B,)."""
        zeros = -0.5 * (LOG_TWO_PI + self.mean.square())
        error = entries.value - entries.of(self.mean)
        return entries.per_cell(-0.5 * (LOG_TWO_PI + error.square()), zeros)

    def constant(self, entries: Entries) -> None:
        """Return nothing: there is no such part worth keeping."""

    @property
    def varies(self) -> bool:
        """Whether `constant` depends on the latent state."""
        return False

    def sample(self) -> Tensor:
        """Draw values, (B, G)."""
        return self.mean + torch.randn_like(self.mean)


def log_factorial(x: Tensor) -> Tensor:
    """Return log x! of whole numbers, (N,) float64; small ones are looked up."""
    small = x.clamp(max=len(LOG_FACTORIALS) - 1).long()
    values = LOG_FACTORIALS.to(x.device).index_select(0, small)
    large = x >= len(LOG_FACTORIALS)
    if large.any():
        values[large] = torch.lgamma(x[large].double() + 1)
    return values


def dispersion_from_moments(moments: Moments, library_size) -> Tensor:
    """Estimate log theta of each gene from its mean and variance, given the cells' library sizes.

    For x ~ NB(l s, theta) with library size l and gene share s, the excess of the variance over
    the mean is (l s)^2 / theta. Twice the estimate is returned, since the decoder will explain
    a part of the excess by differences between cells.

    Parameters
    ----------
    moments
        Sums over the cells.
    library_size
        (n_cells,).

    Returns
    -------
    Tensor
        (G,), between log 0.05 and log 100.
    """
    total = library_size.sum()
    share = moments.total / total  # (G,)
    expected = share**2 * np.square(library_size).sum()
    excess = moments.squares - expected - share * total
    theta = expected / np.maximum(excess, 1e-8 + expected / 50)
    return torch.from_numpy(np.log(2 * np.clip(theta, 0.025, 50))).float()
