"""The linear baseline: principal components of log-normalised counts."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from sclatent.data.compact import Counts
from sclatent.data.compressed import BLOCK


@dataclass(frozen=True)
class Pca:
    """Settings, as in the config's section `pca`."""

    n_components: int = 30


def log_normalise(counts: csr_matrix, library_size: np.ndarray, target: float = 1e4) -> csr_matrix:
    """Return log1p of the counts scaled to `target` per cell, (n_cells, n_genes) float32.

    Parameters
    ----------
    counts
        Raw counts, (n_cells, n_genes).
    library_size
        Total counts of each cell over all genes, not only those here, (n_cells,).
    target
        Counts per cell after scaling.
    """
    scaled = counts.astype(np.float64)
    scaled.data *= np.repeat(target / np.maximum(library_size, 1), np.diff(scaled.indptr))
    scaled.data = np.log1p(scaled.data)
    return scaled.astype(np.float32)


@dataclass(frozen=True)
class LogNormalised:
    """Log-normalised counts that are made when some cells are asked for.

    Attributes
    ----------
    counts
        (n_cells, n_genes), in memory or on disk.
    library_size
        As for `log_normalise`.
    """

    counts: Counts
    library_size: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and genes."""
        return self.counts.shape

    def __getitem__(self, rows) -> csr_matrix:
        """Return some cells."""
        return log_normalise(self.counts[rows], self.library_size[rows])


def fit_pca(values: csr_matrix | LogNormalised, train: np.ndarray, settings: Pca) -> np.ndarray:
    """Fit centred principal components on the training cells and project all cells.

    Mean and covariance are summed over blocks of cells in float64, so the result does not depend
    on the number of threads, and memory grows with genes squared, and with cells only by the
    result. The sign of a component is such that its largest loading is positive.

    Parameters
    ----------
    values
        Log-normalised counts, (n_cells, n_genes).
    train
        Whether a cell is a training cell, (n_cells,) bool.
    settings
        Number of components; at most min(n_genes, n training cells) are returned.

    Returns
    -------
    numpy.ndarray
        (n_cells, n_components) float32, components in order of decreasing variance.
    """
    from scipy.linalg import eigh

    rows, n_genes = np.flatnonzero(train), values.shape[1]
    mean, covariance = covary(values, rows)
    n = min(settings.n_components, n_genes, len(rows))
    variance, loadings = eigh(covariance, subset_by_index=[n_genes - n, n_genes - 1])
    loadings = loadings[:, ::-1]
    largest = np.abs(loadings).argmax(0)
    loadings *= np.sign(loadings[largest, np.arange(n)])
    share = variance[::-1] / np.trace(covariance)
    print(f"{n} components of {n_genes} genes hold {share.sum():.1%} of the variance")
    scores = np.empty((values.shape[0], n), dtype=np.float32)
    for start in range(0, len(scores), BLOCK):
        here = slice(start, start + BLOCK)
        scores[here] = values[here] @ loadings - mean @ loadings
    return scores


def covary(values: csr_matrix | LogNormalised, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (n_genes,) and the covariance (n_genes, n_genes) of some cells.

    The cells are seen once. They are centred by the mean of the first block, so that little is left
    to subtract in the end, where sums could cancel.
    """
    n_genes = values.shape[1]
    centre, total, products = None, np.zeros(n_genes), np.zeros((n_genes, n_genes))
    for start in range(0, len(rows), BLOCK):
        block = values[rows[start : start + BLOCK]].toarray().astype(np.float64)
        centre = block.mean(0) if centre is None else centre
        block -= centre
        total += block.sum(0)
        products += block.T @ block
    mean = total / len(rows)
    products -= len(rows) * np.outer(mean, mean)
    return centre + mean, products / max(1, len(rows) - 1)
