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
itself; the scores of all its parts share one threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.blocks import in_memory
from sclatent.data.genes import standardised_variance

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sclatent.data.blocks import Rows

N_GENES, N_COMPONENTS, RATIO = 2000, 30, 2  # simulated doublets per cell
MIN_CELLS = 100  # a smaller batch is not searched: too few neighbours to judge by
MIN_GENES = 100
MAX_CELLS = 10_000  # of a part of a batch
N_CELLS = 100_000  # of the parts that are read together, from each pass through the counts
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
    counts: Rows, batch: np.ndarray, good: np.ndarray, expected_rate: float, seed: int
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

    Returns
    -------
    scores : (B,) array
        Empty where not searched.
    called : (B,) array of bool
        Which cells are called doublets.
    """
    parts = [
        (name, rows)
        for name in np.unique(batch)
        for rows in deal(np.flatnonzero(good & (batch == name)), seed)
    ]
    found = {name: [] for name, _ in parts}
    for together in in_groups(parts):
        mask = np.isin(np.arange(len(batch)), np.concatenate([rows for _, rows in together]))
        matrix, place = counts.keep(mask).to_csr(), np.cumsum(mask) - 1
        for name, rows in together:
            scored = score_cells(matrix[place[rows]], expected_rate, seed, name)
            found[name].append((rows, *scored))
    scores, called = np.full(len(batch), np.nan), np.zeros(len(batch), dtype=bool)
    for name, of_parts in found.items():
        rows, observed, simulated = map(np.concatenate, zip(*of_parts, strict=True))
        scores[rows] = observed
        if len(simulated):
            called[rows] = judge(observed, simulated, expected_rate, name).called
    return scores, called


def deal(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Deal the cells of a batch at random into parts of at most `MAX_CELLS`, each in order."""
    n_parts = max(1, -(-len(rows) // MAX_CELLS))
    if n_parts == 1:
        return [rows]
    shuffled = np.random.default_rng([seed, 1]).permutation(rows)
    return [np.sort(part) for part in np.array_split(shuffled, n_parts)]


def in_groups(parts: list) -> list[list]:
    """Return the parts in groups of at most `N_CELLS` cells together."""
    groups, size = [[]], 0
    for name, rows in parts:
        if groups[-1] and size + len(rows) > N_CELLS:
            groups, size = [*groups, []], 0
        groups[-1].append((name, rows))
        size += len(rows)
    return groups


def score_cells(
    counts: csr_matrix, expected_rate: float, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the cells of a batch and of the doublets simulated from them.

    Parameters
    ----------
    counts
        Raw counts (B, G) of the cells that passed the other filters.

    Returns
    -------
    scores : (B,) array
        Empty where the cells are too few.
    simulated : (2 B,) array
        No values where the cells are too few.
    """
    n_cells = counts.shape[0]
    seen = np.bincount(counts.indices, minlength=counts.shape[1]) >= 3
    if n_cells < MIN_CELLS or seen.sum() < MIN_GENES:
        print(f"batch {name}: {n_cells} cells and {seen.sum()} genes are too few to find doublets")
        return np.full(n_cells, np.nan), np.empty(0)
    counts = counts[:, seen]
    one = np.zeros(n_cells, dtype=np.int64)
    variance = standardised_variance(in_memory(counts), one, [name])[0][0]
    best = np.argsort(-variance, kind="stable")[:N_GENES]
    total = np.asarray(counts.sum(axis=1)).ravel()
    pairs = np.random.default_rng([seed, 0]).integers(0, n_cells, size=(RATIO * n_cells, 2))
    chosen = counts[:, np.sort(best)]
    doublets = chosen[pairs[:, 0]] + chosen[pairs[:, 1]]
    latent = embed(
        normalise(chosen, total), normalise(doublets, total[pairs].sum(axis=1)), seed=seed
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
