"""Find doublets: cells that look like the sum of two cells of their batch.

Scrublet (Wolock et al. 2019, doi:10.1016/j.cels.2018.11.005): simulate doublets by adding pairs of
cells, embed cells and doublets together, score each cell by how many of its neighbours are
simulated, and cut at the valley between the two modes of the simulated scores.

What differs from the published code and from scanpy's: the matrix stays sparse (theirs centres it
densely), neighbours are exact (scanpy's approximate ones break with this scipy), genes are chosen
as everywhere in this project, and a threshold that cannot be believed removes nothing. To remove
the expected share instead would delete that many real cells, and rare types between two common ones
would go first; the scores stay in the table for whoever wants to cut by hand.

The time of exact neighbours grows with the square of the cells. So a batch of more than `MAX_CELLS`
cells is dealt at random into parts of about equal size, each of which simulates and searches within
itself; all its parts share the chosen genes and one threshold.

All counts are read three times, in blocks: twice to choose genes, once to hold these in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.compressed import compress, join, ranges
from sclatent.data.genes import standardised_variance

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sclatent.data.blocks import Rows
    from sclatent.data.compressed import Block

N_GENES, N_COMPONENTS, RATIO = 2000, 30, 2  # simulated doublets per cell
MIN_CELLS = 100  # a smaller batch is not searched: too few neighbours to judge by
MIN_GENES = 100
CELLS_PER_GENE = 3  # of a batch that a gene must be found in
MAX_CELLS = 10_000  # of a part of a batch
MOST_OVER_EXPECTED = 3  # times the expected rate; a higher rate means the threshold is wrong
LEAST_DETECTABLE = 0.1  # share of the simulated doublets above the threshold


@dataclass(frozen=True)
class Doublets:
    """Doublet scores (B,), the threshold, and why it is not used where it is not."""

    scores: np.ndarray
    threshold: float = np.inf
    doubt: str = ""

    @property
    def called(self) -> np.ndarray:
        """Which cells (B,) are called doublets; none where the threshold is in doubt."""
        return self.scores > self.threshold if not self.doubt else np.zeros(len(self.scores), bool)


def search_doublets(
    counts: Rows,
    batch: np.ndarray,
    good: np.ndarray,
    expected_rate: float,
    seed: int,
    *,
    n_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Score the cells of every batch and choose a threshold for each.

    Parameters
    ----------
    counts
        Raw counts (B, G).
    batch
        Batch of each cell (B,).
    good
        Which cells (B,) passed the other filters.
    expected_rate
        Scrublet's prior share of doublets.
    seed
        Of the parts and of the simulated pairs.
    n_threads
        How many parts are searched at a time; the result does not depend on it.

    Returns
    -------
    scores : (B,) array
        Empty where not searched.
    called : (B,) array of bool
        Which cells are called doublets.
    """
    names, code = np.unique(batch, return_inverse=True)
    where, code, counts = np.flatnonzero(good), code[good], counts.keep(good)
    variance, in_cells = standardised_variance(counts, code, list(names), CELLS_PER_GENE)
    seen = in_cells[:-1] >= CELLS_PER_GENE
    place, parts = best_genes(variance, seen), deal_batches(names, code, seen.sum(axis=1), seed)
    total = np.empty(len(code), dtype=np.int64)
    chosen = join(choose(counts, code, place, total), N_GENES)

    def score(name, part: np.ndarray):
        n_genes = place[names == name].max() + 1
        return score_cells(take(chosen, part)[:, :n_genes], total[part], expected_rate, seed)

    scores, called = np.full(len(batch), np.nan), np.zeros(len(batch), dtype=bool)
    with ThreadPoolExecutor(n_threads) as pool:
        scored = {
            name: [pool.submit(score, name, part) for part in mine] for name, mine in parts.items()
        }
    for name, mine in parts.items():
        results = [future.result() for future in scored[name]]
        rows = where[np.concatenate(mine)]
        scores[rows], simulated = map(np.concatenate, zip(*results, strict=True))
        called[rows] = judge(scores[rows], simulated, expected_rate, name).called
    return scores, called


def deal_batches(
    names: np.ndarray, code: np.ndarray, n_genes: np.ndarray, seed: int
) -> dict[str, list[np.ndarray]]:
    """Return the parts of each batch that has enough cells and genes.

    Parameters
    ----------
    names, n_genes : (S,) arrays
        Of each batch: its name, and how many genes are found in enough of its cells.
    code
        Batch of each cell (B,).
    """
    parts = {}
    for row, name in enumerate(names):
        rows = np.flatnonzero(code == row)
        if len(rows) < MIN_CELLS or n_genes[row] < MIN_GENES:
            what = f"{len(rows)} cells and {n_genes[row]} genes"
            print(f"batch {name}: {what} are too few to find doublets")
        else:
            parts[name] = deal(rows, seed)
    return parts


def best_genes(variance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the place of each gene among the `N_GENES` most variable ones of each batch, else -1.

    Parameters
    ----------
    variance, seen : (S, G) arrays
        Only genes that are seen are chosen.
    """
    rank = np.argsort(np.argsort(np.where(seen, -variance, np.inf), kind="stable"), kind="stable")
    best = seen & (rank < N_GENES)
    return np.where(best, np.cumsum(best, axis=1) - 1, -1).astype(np.int32)


def choose(counts: Rows, code: np.ndarray, place: np.ndarray, total: np.ndarray) -> Iterator[Block]:
    """Yield the counts of the genes that have a place, each at its place, and fill `total`.

    Parameters
    ----------
    counts
        (B, G).
    code
        Batch of each cell (B,).
    place
        As `best_genes` gives it.
    total
        (B,), becomes the sum of all counts of each cell.
    """
    import scipy.sparse as sp

    start = 0
    for block in counts:
        rows = slice(start, start := start + block.shape[0])
        total[rows] = np.asarray(block.sum(axis=1)).ravel()
        genes = place[np.repeat(code[rows], np.diff(block.indptr)), block.indices]
        kept = np.flatnonzero(genes >= 0)
        parts = block.data[kept], genes[kept], np.searchsorted(kept, block.indptr)
        yield compress(sp.csr_matrix(parts, shape=(block.shape[0], N_GENES)))


def take(counts: Block, rows: np.ndarray) -> csr_matrix:
    """Return some cells as a SciPy matrix."""
    begin, end = counts.indptr[rows], counts.indptr[rows + 1]
    places = ranges(begin, end)
    indptr = np.concatenate([[0], np.cumsum(end - begin)])
    return counts._replace(
        indptr=indptr, genes=counts.genes[places], values=counts.values[places]
    ).to_csr()


def deal(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Deal the cells of a batch at random into parts of at most `MAX_CELLS`, each in order."""
    n_parts = max(1, -(-len(rows) // MAX_CELLS))
    if n_parts == 1:
        return [rows]
    shuffled = np.random.default_rng([seed, 1]).permutation(rows)
    return [np.sort(part) for part in np.array_split(shuffled, n_parts)]


def score_cells(
    counts: csr_matrix, total: np.ndarray, expected_rate: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the cells of a batch and of the doublets simulated from them.

    Parameters
    ----------
    counts
        Raw counts (B, G) of the chosen genes.
    total
        Sum of all counts of each cell (B,).

    Returns
    -------
    scores : (B,) array
    simulated : (2 B,) array
    """
    n_cells = counts.shape[0]
    pairs = np.random.default_rng([seed, 0]).integers(0, n_cells, size=(RATIO * n_cells, 2))
    doublets = counts[pairs[:, 0]] + counts[pairs[:, 1]]
    latent = embed(
        normalise(counts, total), normalise(doublets, total[pairs].sum(axis=1)), seed=seed
    )
    scores = neighbour_scores(latent, n_cells, expected_rate)
    return scores[:n_cells], scores[n_cells:]


def normalise(counts: csr_matrix, total: np.ndarray) -> csr_matrix:
    """Return float32 counts scaled to the same total per cell."""
    scaled = counts.astype(np.float32)
    scaled.data *= np.repeat((1e4 / total).astype(np.float32), np.diff(scaled.indptr))
    return scaled


def embed(cells: csr_matrix, doublets: csr_matrix, seed: int) -> np.ndarray:
    """Return principal components of z-scored genes, fitted on cells (cells, then doublets)."""
    import scipy.sparse as sp
    from sklearn.decomposition import PCA

    mean = np.asarray(cells.mean(axis=0)).ravel()
    square = np.asarray(cells.multiply(cells).mean(axis=0)).ravel()
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    scale = sp.diags_array(np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0).astype(np.float32))
    n_components = min(N_COMPONENTS, min(cells.shape) - 1)
    pca = PCA(n_components, svd_solver="arpack", random_state=seed)
    both = [sp.csr_matrix(matrix @ scale) for matrix in (cells, doublets)]
    return np.vstack([pca.fit_transform(both[0]), pca.transform(both[1])]).astype(np.float32)


def neighbour_scores(latent: np.ndarray, n_cells: int, expected_rate: float) -> np.ndarray:
    """Return the posterior probability of being a doublet, of cells and simulated doublets.

    With q the share of simulated doublets among the neighbours (a Beta posterior mean), r their
    number per cell and p the prior rate: q p / r / (1 - p - q (1 - p - p / r)).
    """
    from sklearn.neighbors import NearestNeighbors

    r = len(latent) / n_cells - 1
    k = round(0.5 * np.sqrt(n_cells) * (1 + r))
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(latent)
    neighbours = index.kneighbors(return_distance=False)
    q = ((neighbours >= n_cells).sum(axis=1) + 1) / (k + 2)
    p = expected_rate
    return q * p / r / (1 - p - q * (1 - p - p / r))


def judge(scores: np.ndarray, simulated: np.ndarray, expected_rate: float, name: str) -> Doublets:
    """Put the threshold into the valley of the simulated scores, and doubt what looks wrong."""
    from skimage.filters import threshold_minimum

    try:
        threshold = float(threshold_minimum(simulated))
    except RuntimeError:
        print(f"WARNING batch {name}: doublet scores have no valley; no doublet is removed")
        return Doublets(scores, doubt="no valley")
    detected, detectable = (scores > threshold).mean(), (simulated > threshold).mean()
    doubt = ""
    if detected > MOST_OVER_EXPECTED * expected_rate:
        doubt = f"{detected:.1%} of the cells lie above it, {expected_rate:.1%} are expected"
    elif detectable < LEAST_DETECTABLE:
        doubt = f"only {detectable:.1%} of the simulated doublets lie above it"
    if doubt:
        where = f"WARNING batch {name}: the doublet threshold {threshold:.2f}"
        print(f"{where} is not credible: {doubt}; no doublet is removed")
    else:
        print(
            f"batch {name}: {detected:.1%} of the cells are doublets (score above {threshold:.2f}, "
            f"which finds {detectable:.0%} of the simulated ones)"
        )
    return Doublets(scores, threshold, doubt)
