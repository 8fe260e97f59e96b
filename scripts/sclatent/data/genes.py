"""Choose highly variable genes, batch by batch, from the training cells alone.

A gene's score in a batch is the variance of its clipped, standardised counts, where the standard
deviation expected at its mean comes from a local regression (Stuart et al. 2019,
doi:10.1016/j.cell.2019.05.031; `seurat_v3_paper` in scanpy, whose ranks this reproduces). Genes are
ordered by the number of batches that have them among their best, then by their median rank there.
Here the matrix stays sparse and is read in blocks, twice; a regression that fails has a fallback,
and only genes with counts in the training cells are chosen.

Letters for shapes: B cells, G genes, S batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from sclatent.data.blocks import Rows

SPAN = 0.3  # share of the genes in each local fit, as in Seurat and scanpy


@dataclass(frozen=True)
class Selection:
    """Settings of the choice of genes; the schema describes each."""

    n_top: int = 2000
    min_cells_per_batch: int = 100


def select_genes(counts: Rows, names, batch, selection: Selection) -> pd.DataFrame:
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

    group, ranking = ranking_batches(np.asarray(batch).astype(str), selection.min_cells_per_batch)
    variance, found = standardised_variance(counts, group, ranking)
    seen = found.any(axis=0)
    if not seen.all():
        print(f"{(~seen).sum():,} genes have no counts in the training cells and are not chosen")
    n_top = min(selection.n_top, int(seen.sum()))
    if n_top < selection.n_top:
        print(f"WARNING all {n_top:,} genes are used: genes.n_top asks for {selection.n_top:,}")
    rank = np.argsort(np.argsort(-variance, axis=1, kind="stable"), axis=1, kind="stable")
    among = np.ma.masked_where((rank >= n_top) | ~seen, rank)
    n_batches = among.count(axis=0)
    median = np.ma.median(among, axis=0).filled(np.inf)
    order = np.lexsort([-variance.mean(axis=0), median, -n_batches, ~seen])[:n_top]
    score = n_batches + 1 - np.minimum(median, selection.n_top) / selection.n_top
    columns = {"score": score, "n_batches": n_batches, "median_rank": median}
    table = pd.DataFrame({"gene": np.asarray(names, dtype=object)} | columns).iloc[order]
    common = (table["n_batches"] == len(ranking)).sum()
    print(f"chose {n_top:,} of {counts.shape[1]:,} genes; {common:,} by all {len(ranking)} batches")
    return table.replace(np.inf, np.nan).reset_index(drop=True)


def ranking_batches(batch: np.ndarray, min_cells: int) -> tuple[np.ndarray, list[str]]:
    """Return the group of each cell (B,) and the names of the groups that rank genes.

    A batch that is large enough is a group; all others are together in one more, without a name.
    Where no batch is large enough, all cells are one group.
    """
    names, code, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    for name, size in zip(names, sizes, strict=True):
        if size < min_cells and len(names) > 1:
            print(
                f"batch {name} does not rank genes: {size} training cells of at least {min_cells}"
            )
    large = np.flatnonzero(sizes >= min_cells)
    if not len(large):
        print(f"no batch has {min_cells} training cells: genes are ranked on all {len(batch):,}")
        return np.zeros(len(batch), dtype=np.int64), ["all"]
    group = np.full(len(names), len(large))
    group[large] = np.arange(len(large))
    return group[code], [str(name) for name in names[large]]


def standardised_variance(
    counts: Rows, group: np.ndarray, names: list[str], min_cells: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the counts of each group in units of what their mean lets expect.

    Standardised counts are clipped at the square root of the number of cells, so that one cell
    cannot make a gene variable.

    Parameters
    ----------
    counts
        (B, G).
    group
        Code of each cell (B,), from 0 to S - 1; S where the cell is of no group with a name.
    names
        Of the S groups.
    min_cells
        A gene with counts in fewer cells of a group has no variance there.

    Returns
    -------
    variance : (S, G) array
    found : (S + 1, G) array
        Number of cells with counts.
    """
    n_cells = np.bincount(group, minlength=len(names) + 1)[:, None]
    total, square, found = add_up(counts, group, len(n_cells))
    mean = total / np.maximum(n_cells, 1)
    variance = np.maximum(square / np.maximum(n_cells, 1) - mean**2, 0)
    variance *= n_cells / np.maximum(n_cells - 1, 1)
    variance[found < min_cells] = 0
    sd, result = np.ones_like(mean), np.zeros((len(names), counts.shape[1]))
    for row, name in enumerate(names):
        varies = variance[row] > 0
        if varies.any():
            logs = np.log10(mean[row, varies]), np.log10(variance[row, varies])
            sd[row, varies] = np.sqrt(10 ** expected_log_variance(*logs, name))
    clipped, clipped_square, _ = add_up(counts, group, len(n_cells), np.sqrt(n_cells) * sd + mean)
    spread = n_cells * mean**2 + clipped_square - 2 * clipped * mean
    spread /= np.maximum(n_cells - 1, 1) * sd**2
    named = slice(len(names))
    result[variance[named] > 0] = spread[named][variance[named] > 0]
    return result, found


def add_up(
    counts: Rows, group: np.ndarray, n_groups: int, ceiling: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums of counts, of their squares, and numbers of cells with counts, in each group.

    All are (n_groups, G) float64. `ceiling` (n_groups, G) clips the counts.
    """
    shape = n_groups, counts.shape[1]
    total, square, found, start = np.zeros(shape), np.zeros(shape), np.zeros(shape), 0
    for block in counts:
        rows = group[start : start + block.shape[0]].astype(np.int64) * shape[1]
        start += block.shape[0]
        places = np.repeat(rows, np.diff(block.indptr)) + block.indices
        values = block.data.astype(float)
        if ceiling is not None:
            np.minimum(values, ceiling.ravel()[places], out=values)
        total += np.bincount(places, values, minlength=total.size).reshape(shape)
        square += np.bincount(places, values**2, minlength=total.size).reshape(shape)
        found += np.bincount(places, values > 0, minlength=total.size).reshape(shape)
    return total, square, found


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
