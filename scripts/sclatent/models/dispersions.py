"""The inverse dispersion theta of the counts: per gene, per gene and group, or per cell.

Each is a module that maps a hidden state of the decoder and a minibatch to log theta; `thetas` says
the same to the kernels.

Letters for shapes: B cells, G genes, H hidden units.
"""

import torch
from torch import Tensor, nn

from sclatent.kernels.counts import Head, Table, Thetas
from sclatent.kernels.likelihood import LOG_THETA

LOWEST, HIGHEST = -9.2, 13.8
"""Bounds of log theta: theta from 1e-4 to 1e6."""


class GeneDispersion(nn.Module):
    """One theta per gene."""

    def __init__(self, n_genes: int):
        super().__init__()
        self.log_theta = nn.Parameter(torch.randn(n_genes))

    def start_from(self, log_theta: Tensor) -> None:
        """Start at the given log theta, (G,)."""
        self.log_theta.copy_(log_theta.expand_as(self.log_theta))

    def forward(self, hidden: Tensor, minibatch) -> Tensor:
        """Return log theta, (G,)."""
        return self.log_theta.clamp(LOWEST, HIGHEST)

    def thetas(self, hidden: Tensor, minibatch) -> Table:
        """Return what the kernels look up."""
        return Table(self.log_theta, self.row(minibatch), (LOWEST, HIGHEST))

    def row(self, minibatch) -> Tensor | None:
        """Return which row each cell has, (B,); None for the same."""
        return None


class BatchDispersion(GeneDispersion):
    """One theta per gene and batch."""

    def __init__(self, n_genes: int, n_batches: int):
        super().__init__(n_genes)
        self.log_theta = nn.Parameter(torch.randn(n_batches, n_genes))

    def forward(self, hidden: Tensor, minibatch) -> Tensor:
        """Return log theta, (B, G)."""
        return minibatch.batch @ self.log_theta.clamp(LOWEST, HIGHEST)

    def row(self, minibatch) -> Tensor:
        """Return which row each cell has, (B,)."""
        return minibatch.batch.argmax(1)


class LabelDispersion(GeneDispersion):
    """One theta per gene and label; the cells whose label is hidden share the last row."""

    def __init__(self, n_genes: int, n_labels: int):
        super().__init__(n_genes)
        self.log_theta = nn.Parameter(torch.randn(n_labels + 1, n_genes))

    def forward(self, hidden: Tensor, minibatch) -> Tensor:
        """Return log theta, (B, G)."""
        return self.log_theta.clamp(LOWEST, HIGHEST)[minibatch.label]

    def row(self, minibatch) -> Tensor:
        """Return which row each cell has, (B,)."""
        return minibatch.label % len(self.log_theta)


class CellDispersion(nn.Module):
    """A theta per gene and cell, log-linear in the decoder's hidden state."""

    def __init__(self, n_genes: int, n_hidden: int):
        super().__init__()
        self.log_theta = nn.Linear(n_hidden, n_genes)

    def start_from(self, log_theta: Tensor) -> None:
        """Start at the given log theta, (G,)."""
        self.log_theta.bias.copy_(log_theta)

    def forward(self, hidden: Tensor, minibatch) -> Tensor:
        """Return log theta, (B, G)."""
        return self.log_theta(hidden).clamp(LOWEST, HIGHEST)

    def thetas(self, hidden: Tensor, minibatch) -> Thetas:
        """Return what the kernels compute."""
        return Thetas(Head.of(hidden, self.log_theta), LOG_THETA, (LOWEST, HIGHEST))


def build_dispersion(name: str, sizes, n_hidden: int) -> nn.Module:
    """Return the dispersion of a name.

    Parameters
    ----------
    name
        ``gene``, ``gene-batch``, ``gene-label`` or ``gene-cell``.
    sizes
        Numbers of genes, batches and labels.
    n_hidden
        Size of the decoder's hidden state.
    """
    if name == "gene-batch":
        return BatchDispersion(sizes.genes, sizes.batches)
    if name == "gene-label":
        return LabelDispersion(sizes.genes, sizes.labels)
    if name == "gene-cell":
        return CellDispersion(sizes.genes, n_hidden)
    return GeneDispersion(sizes.genes)
