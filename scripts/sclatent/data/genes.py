"""Choose highly variable genes, batch by batch, from the training cells alone.

A gene's score in a batch is the variance of its clipped, standardised counts, where the standard
deviation expected at its mean comes from a local regression (Stuart et al. 2019,
doi:10.1016/j.cell.2019.05.031; `seurat_v3_paper` in scanpy, whose ranks this reproduces). Genes are
ordered by the number of batches that have them among their best, then by their median rank there.
Here the matrix stays sparse, a regression that fails has a fallback, and only genes with counts in
the training cells are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

SPAN = 0.3  # share of the genes in each local fit, as in Seurat and scanpy


@dataclass(frozen=True)
class Selection:
    """Settings of the choice of genes; the schema describes each."""

    n_top: int = 2000
    min_cells_per_batch: int = 100


def select_genes(counts: csr_matrix, names, batch, selection: Selection) -> pd.DataFrame:
    """Return the chosen genes, best first.

    Parameters
    ----------
    counts
        Raw counts (B, G) of the training cells; hand in no others.
    names
        Names of the genes (G,).
    batch
        Batch of each cell (B,).
    selection
        How many genes, and which batches may rank.

    Returns
    -------
    pandas.DataFrame
        `gene`; `score` (falls down the table: number of batches that rank the gene among their
        n_top, plus one, minus its median rank there in units of n_top); `n_batches`;
        `median_rank` (from 0; empty where no batch ranks the gene).
    """
    import pandas as pd

    groups = ranking_batches(np.asarray(batch).astype(str), selection.min_cells_per_batch)
    seen = np.asarray(counts.sum(axis=0)).ravel() > 0
    if not seen.all():
        print(f"{(~seen).sum():,} genes have no counts in the training cells and are not chosen")
    n_top = min(selection.n_top, int(seen.sum()))
    if n_top < selection.n_top:
        print(f"WARNING all {n_top:,} genes are used: genes.n_top asks for {selection.n_top:,}")
    variance = np.stack([standardised_variance(counts[rows], name) for name, rows in groups])
    rank = np.argsort(np.argsort(-variance, axis=1, kind="stable"), axis=1, kind="stable")
    among = np.ma.masked_where((rank >= n_top) | ~seen, rank)
    n_batches = among.count(axis=0)
    median = np.ma.median(among, axis=0).filled(np.inf)
    order = np.lexsort([-variance.mean(axis=0), median, -n_batches, ~seen])[:n_top]
    score = n_batches + 1 - np.minimum(median, selection.n_top) / selection.n_top
    columns = {"score": score, "n_batches": n_batches, "median_rank": median}
    table = pd.DataFrame({"gene": np.asarray(names, dtype=object)} | columns).iloc[order]
    common = (table["n_batches"] == len(groups)).sum()
    print(f"chose {n_top:,} of {counts.shape[1]:,} genes; {common:,} by all {len(groups)} batches")
    return table.replace(np.inf, np.nan).reset_index(drop=True)


def ranking_batches(batch: np.ndarray, min_cells: int) -> list[tuple[str, np.ndarray]]:
    """Return (name, rows) of each batch that is large enough; all cells as one if none is."""
    names, sizes = np.unique(batch, return_counts=True)
    for name, size in zip(names, sizes, strict=True):
        if size < min_cells and len(names) > 1:
            print(
                f"batch {name} does not rank genes: {size} training cells of at least {min_cells}"
            )
    large = names[sizes >= min_cells]
    if not len(large):
        print(f"no batch has {min_cells} training cells: genes are ranked on all {len(batch):,}")
        return [("all", np.arange(len(batch)))]
    return [(str(name), np.flatnonzero(batch == name)) for name in large]


def standardised_variance(counts: csr_matrix, name: str) -> np.ndarray:
    """Return the variance (G,) of counts in units of what their mean lets expect.

    Standardised counts are clipped at the square root of the number of cells, so that one cell
    cannot make a gene variable.
    """
    n_cells = counts.shape[0]
    mean, variance = moments(counts)
    varies = variance > 0
    result = np.zeros(counts.shape[1])
    if not varies.any():
        return result
    expected = expected_log_variance(np.log10(mean[varies]), np.log10(variance[varies]), name)
    sd = np.ones_like(mean)
    sd[varies] = np.sqrt(10**expected)
    ceiling = np.sqrt(n_cells) * sd + mean
    clipped = np.minimum(counts.data, ceiling[counts.indices])
    total = np.bincount(counts.indices, clipped, minlength=len(mean))
    square = np.bincount(counts.indices, clipped**2, minlength=len(mean))
    spread = n_cells * mean**2 + square - 2 * total * mean
    result[varies] = (spread / (max(n_cells - 1, 1) * sd**2))[varies]
    return result


def moments(counts: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased variance (G,) of a sparse matrix (B, G) in double precision."""
    n_cells, n_genes = counts.shape
    data = counts.data.astype(float)
    mean = np.bincount(counts.indices, data, minlength=n_genes) / n_cells
    square = np.bincount(counts.indices, data**2, minlength=n_genes) / n_cells
    variance = np.maximum(square - mean**2, 0) * n_cells / max(n_cells - 1, 1)
    return mean, variance


def expected_log_variance(log_mean: np.ndarray, log_variance: np.ndarray, name: str) -> np.ndarray:
    """Fit log10 variance by log10 mean with loess, or with a parabola where loess fails.

    Loess is singular when many genes share few means, as in small batches.
    """
    from skmisc.loess import loess

    try:
        model = loess(log_mean, log_variance, span=SPAN, degree=2)
        model.fit()
        fitted = model.outputs.fitted_values
        if np.isfinite(fitted).all():
            return fitted
    except ValueError:  # "svddc failed": a local fit is singular
        pass
    print(f"batch {name}: loess failed; the variance expected at a mean comes from a parabola")
    degree = min(2, len(np.unique(log_mean)) - 1)
    centre = log_mean.mean()
    return np.polyval(np.polyfit(log_mean - centre, log_variance, degree), log_mean - centre)
