"""Find doublets: cells that look like the sum of two cells of their batch.

Scrublet (Wolock et al. 2019, doi:10.1016/j.cels.2018.11.005): simulate doublets by adding pairs of
cells, embed cells and doublets together, score each cell by how many of its neighbours are
simulated, and cut at the valley between the two modes of the simulated scores.

What differs from the published code and from scanpy's: the matrix stays sparse (theirs centres it
densely), neighbours are exact (scanpy's approximate ones break with this scipy), genes are chosen
as everywhere in this project, and a threshold that cannot be believed removes nothing. To remove
the expected share instead would delete that many real cells, and rare types between two common ones
would go first; the scores stay in the table for whoever wants to cut by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.genes import standardised_variance

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_GENES, N_COMPONENTS, RATIO = 2000, 30, 2  # simulated doublets per cell
MIN_CELLS = 100  # a smaller batch is not searched: too few neighbours to judge by
MIN_GENES = 100
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


def find_doublets(counts: csr_matrix, expected_rate: float, seed: int, name: str) -> Doublets:
    """Score the cells of one batch and choose a threshold.

    Parameters
    ----------
    counts
        Raw counts (B, G) of the cells that passed the other filters.
    expected_rate
        Scrublet's prior share of doublets.
    seed
        Of the simulated pairs.
    name
        The batch's, for messages.
    """
    n_cells = counts.shape[0]
    seen = np.bincount(counts.indices, minlength=counts.shape[1]) >= 3
    if n_cells < MIN_CELLS or seen.sum() < MIN_GENES:
        print(f"batch {name}: {n_cells} cells and {seen.sum()} genes are too few to find doublets")
        return Doublets(np.full(n_cells, np.nan), doubt="too few")
    counts = counts[:, seen]
    best = np.argsort(-standardised_variance(counts, name), kind="stable")[:N_GENES]
    total = np.asarray(counts.sum(axis=1)).ravel()
    pairs = np.random.default_rng([seed, 0]).integers(0, n_cells, size=(RATIO * n_cells, 2))
    chosen = counts[:, np.sort(best)]
    doublets = chosen[pairs[:, 0]] + chosen[pairs[:, 1]]
    latent = embed(
        normalise(chosen, total), normalise(doublets, total[pairs].sum(axis=1)), seed=seed
    )
    scores = neighbour_scores(latent, n_cells, expected_rate)
    return judge(scores[:n_cells], scores[n_cells:], expected_rate, name)


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
