"""DCA's last layers: from hidden states of the decoder to a distribution of the counts.

An output holds the heads of one likelihood. `forward` takes a hidden state for each head (a fork
has several) and the log size factor s, and returns the distribution, whose mean is s exp(.), or s
times a linear map for `normal`.

Letters for shapes: B cells, G genes, H hidden units.

Every mean and theta is clipped as in dca 0.3: the mean, before s, to 1e-5 and 1e6, theta of a cell
to 1e-4 and 1e4, theta of a gene to 1e-3 and 1e4.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from sclatent.kernels.counts import Head, Table, Thetas, counts_loss
from sclatent.kernels.likelihood import EXPONENTIAL, SOFTPLUS_THETA
from sclatent.models.likelihoods import (
    NegativeBinomial,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

LOG_BOUNDS = (math.log(1e-3), math.log(1e4))
"""Of the log theta of a gene."""


class GeneTheta(nn.Module):
    """One theta per gene; it starts at 1."""

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__()
        self.log_theta = nn.Parameter(torch.zeros(n_genes))

    def start_from(self, log_theta: Tensor) -> None:
        """Start at the given log theta, (G,)."""
        self.log_theta.copy_(log_theta)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return log theta, (G,)."""
        return self.log_theta.clamp(*LOG_BOUNDS)

    def thetas(self, hidden: Tensor) -> Table:
        """Return what the kernels look up."""
        return Table(self.log_theta, None, LOG_BOUNDS)


class CellTheta(nn.Linear):
    """A theta per cell and gene: softplus of a linear map of the hidden state."""

    def start_from(self, log_theta: Tensor) -> None:
        """Start at the given log theta of the genes, (G,)."""
        theta = log_theta.exp()
        self.bias.copy_(theta + (-torch.expm1(-theta)).log())  # inverse of softplus

    def forward(self, hidden: Tensor) -> Tensor:
        """Return log theta, (B, G)."""
        return softplus(super().forward(hidden)).clamp(1e-4, 1e4).log()

    def thetas(self, hidden: Tensor) -> Thetas:
        """Return what the kernels compute."""
        return Thetas(Head(hidden, self.weight, self.bias), SOFTPLUS_THETA, (1e-4, 1e4))


class SharedTheta(CellTheta):
    """A theta per cell, the same for all genes."""

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__(n_hidden, 1)

    def start_from(self, log_theta: Tensor) -> None:
        """Start at the mean of the genes' log theta, (G,)."""
        super().start_from(log_theta.mean(0, keepdim=True))


class CellPi(nn.Linear):
    """A probability of extra zeros per cell and gene; its logit is linear in the hidden state."""

    def forward(self, hidden: Tensor, log_mean: Tensor) -> Tensor:
        """Return the logit of pi, (B, G)."""
        return super().forward(hidden)


class SharedPi(CellPi):
    """A probability of extra zeros per cell, the same for all genes."""

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__(n_hidden, 1)


class ElementwisePi(nn.Module):
    """A probability of extra zeros that depends on the gene's own mean: logit = a_g log mu_g + b_g.

    mu is the mean without the size factor, not clipped.
    """

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__()
        # Keras takes a vector of G weights to have as many inputs and outputs.
        limit = math.sqrt(3 / n_genes)
        self.weight = nn.Parameter(torch.empty(n_genes).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(n_genes))

    def forward(self, hidden: Tensor, log_mean: Tensor) -> Tensor:
        """Return the logit of pi, (B, G)."""
        return log_mean * self.weight + self.bias


class NormalOutput(nn.Module):
    """Normal with unit variance around s times a linear map."""

    n_heads = 1
    fast = False

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__()
        self.mean = nn.Linear(n_hidden, n_genes)

    def start_from(self, mean: Tensor, log_theta: Tensor) -> None:
        """Start at the genes' means, (G,)."""
        self.mean.bias.copy_(mean)

    def forward(self, hidden: list[Tensor], log_size: Tensor) -> Normal:
        """Return p(x | z, s)."""
        return Normal(self.mean(hidden[0]) * log_size.exp())


class PoissonOutput(nn.Module):
    """Poisson; the head gives the log mean."""

    n_heads = 1
    fast = True

    def __init__(self, n_hidden: int, n_genes: int):
        super().__init__()
        self.mean = nn.Linear(n_hidden, n_genes)

    def start_from(self, mean: Tensor, log_theta: Tensor) -> None:
        """Start at the genes' means, (G,)."""
        self.mean.bias.copy_(mean.log())

    def forward(self, hidden: list[Tensor], log_size: Tensor) -> Poisson:
        """Return p(x | z, s)."""
        return Poisson(clip(self.mean(hidden[0])) + log_size)

    def loss(self, hidden: list[Tensor], log_size: Tensor, minibatch) -> Tensor:
        """Return the mean of -log p(x | z, s) by the kernels, where `fast` says they know it."""
        mean = Head.of(hidden[0], self.mean)
        return counts_loss(minibatch, EXPONENTIAL, mean, log_size, *self.others(hidden))

    def others(self, hidden: list[Tensor]) -> tuple:
        """Return thetas and logits of extra zeros for the kernels."""
        return None, None


class NegativeBinomialOutput(PoissonOutput):
    """Negative binomial; `theta` is the class of its second head."""

    n_heads = 2

    def __init__(self, n_hidden: int, n_genes: int, theta: type):
        super().__init__(n_hidden, n_genes)
        self.theta = theta(n_hidden, n_genes)
        self.fast = theta is not SharedTheta

    def start_from(self, mean: Tensor, log_theta: Tensor) -> None:
        """Start at the genes' means and log theta, (G,) each."""
        super().start_from(mean, log_theta)
        self.theta.start_from(log_theta)

    def forward(self, hidden: list[Tensor], log_size: Tensor) -> NegativeBinomial:
        """Return p(x | z, s)."""
        log_mean = self.mean(hidden[0])
        return NegativeBinomial(clip(log_mean) + log_size, self.theta(hidden[1]))

    def others(self, hidden: list[Tensor]) -> tuple:
        """Return thetas and logits of extra zeros for the kernels."""
        return self.theta.thetas(hidden[1]), None


class ZeroInflatedOutput(NegativeBinomialOutput):
    """Negative binomial with extra zeros; `pi` is the class of its third head."""

    n_heads = 3

    def __init__(self, n_hidden: int, n_genes: int, theta: type, pi: type):
        super().__init__(n_hidden, n_genes, theta)
        self.pi = pi(n_hidden, n_genes)
        self.fast = pi is CellPi

    def forward(self, hidden: list[Tensor], log_size: Tensor) -> ZeroInflatedNegativeBinomial:
        """Return p(x | z, s)."""
        log_mean = self.mean(hidden[0])
        pi = self.pi(hidden[2], log_mean)
        return ZeroInflatedNegativeBinomial(clip(log_mean) + log_size, self.theta(hidden[1]), pi)

    def others(self, hidden: list[Tensor]) -> tuple:
        """Return thetas and logits of extra zeros for the kernels."""
        pi = Head(hidden[2], self.pi.weight, self.pi.bias)
        return self.theta.thetas(hidden[1]), pi


OUTPUTS = {
    "normal": (NormalOutput,),
    "poisson": (PoissonOutput,),
    "nb": (NegativeBinomialOutput, GeneTheta),
    "nb-conddisp": (NegativeBinomialOutput, CellTheta),
    "nb-shared": (NegativeBinomialOutput, SharedTheta),
    "nb-fork": (NegativeBinomialOutput, CellTheta),
    "zinb": (ZeroInflatedOutput, GeneTheta, CellPi),
    "zinb-conddisp": (ZeroInflatedOutput, CellTheta, CellPi),
    "zinb-shared": (ZeroInflatedOutput, SharedTheta, SharedPi),
    "zinb-fork": (ZeroInflatedOutput, CellTheta, CellPi),
    "zinb-elempi": (ZeroInflatedOutput, CellTheta, ElementwisePi),
}
"""The output of each likelihood, and the classes of its heads for theta and pi."""


def build_output(likelihood: str, n_hidden: int, n_genes: int) -> nn.Module:
    """Return the heads of a likelihood, one of `OUTPUTS`."""
    output, *heads = OUTPUTS[likelihood]
    return output(n_hidden, n_genes, *heads)


def clip(log_mean: Tensor) -> Tensor:
    """Return the log of a mean between 1e-5 and 1e6."""
    return log_mean.clamp(math.log(1e-5), math.log(1e6))
