"""The neural networks that the models are made of.

Letters for shapes: B cells, G genes, L latent dimensions, H hidden units, C covariate columns.
"""

import torch
from torch import Tensor, nn


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

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return the last hidden state, (B, H)."""
        for linear, norm in zip(self.linear, self.norm, strict=True):
            if covariates is not None:
                x = torch.cat([x, covariates], 1)
            x = self.dropout(torch.relu(norm(linear(x))))
        return x


class Gaussian(nn.Module):
    """A diagonal normal distribution whose mean and variance are functions of the input.

    The variance is exp(.) + 1e-4, as in scvi-tools.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_hidden: int,
        n_layers: int = 1,
        n_covariates: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.layers = Layers(n_in, n_hidden, n_layers, n_covariates, dropout)
        self.mean = nn.Linear(n_hidden, n_out)
        self.log_variance = nn.Linear(n_hidden, n_out)

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and variance, each (B, n_out)."""
        hidden = self.layers(x, covariates)
        return self.mean(hidden), self.log_variance(hidden).exp() + 1e-4


def sample(mean: Tensor, variance: Tensor) -> Tensor:
    """Draw from a diagonal normal so that gradients reach its parameters."""
    return mean + variance.sqrt() * torch.randn_like(mean)


def kl_standard_normal(mean: Tensor, variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, I)) of each cell, (B,)."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


def log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the log density of a diagonal normal, summed over the last axis."""
    log_two_pi = 1.8378770664093453
    return -0.5 * (log_two_pi + variance.log() + (x - mean).square() / variance).sum(-1)
