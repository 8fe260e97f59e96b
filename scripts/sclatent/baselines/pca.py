"""The linear baseline: principal components of log-normalised counts."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

BLOCK = 4096


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


def fit_pca(values: csr_matrix, train: np.ndarray, settings: Pca) -> np.ndarray:
    """Fit centred principal components on the training cells and project all cells.

    The covariance is summed over blocks of cells in float64 and decomposed, so the result does
    not depend on the number of threads, and memory grows with genes squared, not with cells. The
    sign of a component is such that its largest loading is positive.

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

    mean = np.asarray(values[train].mean(0), dtype=np.float64).ravel()
    rows = np.flatnonzero(train)
    n_genes = values.shape[1]
    covariance = np.zeros((n_genes, n_genes))
    for start in range(0, len(rows), BLOCK):
        block = values[rows[start : start + BLOCK]].toarray().astype(np.float64) - mean
        covariance += block.T @ block
    n = min(settings.n_components, n_genes, len(rows))
    variance, loadings = eigh(
        covariance / max(1, len(rows) - 1), subset_by_index=[n_genes - n, n_genes - 1]
    )
    loadings = loadings[:, ::-1]
    largest = np.abs(loadings).argmax(0)
    loadings *= np.sign(loadings[largest, np.arange(n)])
    share = variance[::-1] / np.trace(covariance / max(1, len(rows) - 1))
    print(f"{n} components of {n_genes} genes hold {share.sum():.1%} of the variance")
    scores = [
        (values[start : start + BLOCK] @ loadings) - mean @ loadings
        for start in range(0, values.shape[0], BLOCK)
    ]
    return np.concatenate(scores).astype(np.float32)
