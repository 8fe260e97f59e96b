"""The library size of a cell in a model: observed, or a latent variable of its own.

Each has `draw(inputs, minibatch, covariates)`, which gives the log library size and what it costs.

Letters for shapes: B cells, S batches.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sclatent.models.networks import Gaussian, kl_normal, log_normal, sample


def build_library(settings, n_inputs: int, n_columns: int, n_batches: int) -> nn.Module:
    """Return the library size that scVI's settings name.

    Parameters
    ----------
    settings
        Of scVI.
    n_inputs, n_columns
        Inputs of the encoder, and one-hot columns that it sees beside them.
    n_batches
        Number of batches, each with a prior of its own.
    """
    if settings.library == "latent":
        return LatentLibrary(n_inputs, n_batches, settings.n_hidden, n_columns, settings.dropout)
    return ObservedLibrary()


class Library(NamedTuple):
    """A log library size, with KL(q(l|x) || p(l|s)) and log p(l|s) - log q(l|x) at this value."""

    log_size: Tensor  # (B, 1)
    kl: Tensor  # (B,)
    log_ratio: Tensor  # (B,)


class ObservedLibrary(nn.Module):
    """The cell's total counts over the genes that the model sees."""

    def draw(self, inputs: Tensor, minibatch, covariates: Tensor | None) -> Library:
        """Return the log of the total; it costs nothing."""
        log_size = minibatch.library_size.log()
        nothing = torch.zeros_like(log_size[:, 0])
        return Library(log_size, nothing, nothing)


class LatentLibrary(nn.Module):
    """l ~ LogNormal, with the mean and variance of the log totals of the cell's batch as prior.

    q(l|x) is log-normal too; its encoder has one layer, as in the paper.
    """

    def __init__(
        self, n_inputs: int, n_batches: int, n_hidden: int, n_covariates: int, dropout: float
    ):
        super().__init__()
        self.encoder = Gaussian(n_inputs, 1, n_hidden, 1, n_covariates, dropout)
        self.register_buffer("mean", torch.zeros(n_batches))
        self.register_buffer("variance", torch.ones(n_batches))

    @torch.no_grad()
    def start_from(self, library_size: np.ndarray, batch: np.ndarray) -> None:
        """Take the prior of each batch from its cells' totals and batch codes, (n_cells,) each.

        A batch without cells takes that of all.
        """
        for code in range(len(self.mean)):
            chosen = batch == code
            log_size = np.log(library_size[chosen] if chosen.any() else library_size)
            self.mean[code] = float(log_size.mean())
            self.variance[code] = max(float(log_size.var()), 1e-4)

    def draw(self, inputs: Tensor, minibatch, covariates: Tensor | None) -> Library:
        """Return a sample of the log library size from q(l|x)."""
        posterior = self.encoder(inputs, covariates)
        prior = [(minibatch.batch @ values)[:, None] for values in (self.mean, self.variance)]
        log_size = sample(*posterior)
        log_ratio = log_normal(log_size, *prior) - log_normal(log_size, *posterior)
        return Library(log_size, kl_normal(*posterior, *prior), log_ratio)
