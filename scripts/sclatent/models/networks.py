"""The neural networks that the models are made of.

Letters for shapes: B cells, G genes, L latent dimensions, H hidden units, C covariate columns.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from sclatent.kernels.latent import normal_density, normal_draw, normal_heads
from sclatent.kernels.layer import layer
from sclatent.kernels.operators import Rows, active
from sclatent.models.likelihoods import LOG_TWO_PI


class Layers(nn.Module):
    """Fully connected layers; the covariates are appended to the input of each.

    Each layer is linear, batch normalisation, ReLU, dropout, as in scvi-tools (momentum 0.01,
    eps 1e-3), so that weights can be exchanged.
    """

    def __init__(self, n_in: int, n_hidden: int, n_layers: int, n_covariates: int, dropout: float):
        super().__init__()
        sizes = [n_in] + [n_hidden] * (n_layers - 1)
        self.linear = nn.ModuleList(nn.Linear(size + n_covariates, n_hidden) for size in sizes)
        self.norm = nn.ModuleList(nn.BatchNorm1d(n_hidden, momentum=0.01, eps=1e-3) for _ in sizes)
        self.dropout = nn.Dropout(dropout)
        self.n_out = n_hidden

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the last hidden state, (B, H)."""
        for linear, norm in zip(self.linear, self.norm, strict=True):
            if not (self.training and active()):
                x = self.dropout(torch.relu(norm(through(linear, append(x, covariates)))))
            else:
                x = layer(x, covariates, linear, norm, self.dropout.p)
        return x

    def settled(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the last hidden state as in use: running statistics, no dropout, (B, H)."""
        for linear, norm in zip(self.linear, self.norm, strict=True):
            known = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            x = torch.relu(batch_norm(through(linear, append(x, covariates)), *known, eps=norm.eps))
        return x


class Append(nn.Module):
    """No layers: the input and the covariates side by side, for a linear decoder."""

    def __init__(self, n_in: int, n_covariates: int):
        super().__init__()
        self.n_out = n_in + n_covariates

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return (B, n_in + C)."""
        return append(x, covariates)


class Gaussian(nn.Module):
    """A diagonal normal distribution whose mean and variance are functions of the input.

    The variance is exp(.) plus a floor, as in the encoders of scvi-tools.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_hidden: int,
        n_layers: int = 1,
        n_covariates: int = 0,
        dropout: float = 0.0,
        floor: float = 1e-4,
    ):
        super().__init__()
        self.layers = Layers(n_in, n_hidden, n_layers, n_covariates, dropout)
        self.mean = nn.Linear(n_hidden, n_out)
        self.log_variance = nn.Linear(n_hidden, n_out)
        self.floor = floor

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and variance, each (B, n_out)."""
        return self.heads(self.layers(x, covariates))

    def settled(self, x: Tensor, covariates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and variance as in use: running statistics, no dropout."""
        return self.heads(self.layers.settled(x, covariates))

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a hidden state."""
        if active():
            return normal_heads(hidden, self.mean, self.log_variance, self.floor)
        return self.mean(hidden), self.log_variance(hidden).exp() + self.floor


def head(decoder: Layers | Append, n_genes: int) -> nn.Module:
    """Return what maps a decoder's hidden state to the genes, (B, H) to (B, G).

    After no layers it is a linear map and batch normalisation, as in LDVAE of scvi-tools.
    """
    if isinstance(decoder, Append):
        norm = nn.BatchNorm1d(n_genes, momentum=0.01, eps=1e-3)
        return nn.Sequential(nn.Linear(decoder.n_out, n_genes, bias=False), norm)
    return nn.Linear(decoder.n_out, n_genes)


def through(layer: nn.Module, x: Tensor | Rows):
    """Return what a layer makes of `x`."""
    return x.through(layer) if isinstance(x, Rows) else layer(x)


def append(x: Tensor | Rows, covariates: Tensor | None) -> Tensor | Rows:
    """Return `x` (B, n) with the covariates (B, C) at its side; None stands for none."""
    if covariates is None:
        return x
    return x.beside(covariates) if isinstance(x, Rows) else torch.cat([x, covariates], 1)


def sample(mean: Tensor, variance: Tensor) -> Tensor:
    """Draw from a diagonal normal so that gradients reach its parameters."""
    return draw(mean, variance)[0] if active() else mean + variance.sqrt() * torch.randn_like(mean)


def draw(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sample, and KL(N(mean, variance) || N(0, I)) of each cell, (B,)."""
    if active():
        return normal_draw(mean, variance)
    return sample(mean, variance), kl_standard_normal(mean, variance)


def kl_standard_normal(mean: Tensor, variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, I)) of each cell, (B,)."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


def kl_normal(mean: Tensor, variance: Tensor, prior_mean: Tensor, prior_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(prior_mean, prior_variance)) of each cell, (B,)."""
    ratio = variance / prior_variance
    distance = (mean - prior_mean).square() / prior_variance
    return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the log density of a diagonal normal, summed over the last axis."""
    if active() and x.dim() == 2 and x.shape == mean.shape == variance.shape:
        return normal_density(x, mean, variance)
    return -0.5 * (LOG_TWO_PI + variance.log() + (x - mean).square() / variance).sum(-1)
