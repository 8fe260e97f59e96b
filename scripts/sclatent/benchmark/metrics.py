"""Scores of a latent: pure functions of arrays that return one float, higher is better.

Letters for shapes: B cells, L latent dimensions, K neighbours. Labels and batches are integer
codes. Neighbours are exact and Euclidean; a cell is not its own neighbour. A score that is not
defined on the given cells is nan. Every score is unchanged, up to rounding, when the latent is
rotated or shifted, when labels are renamed or cells permuted (k-means draws its first centres by
the order of the cells, so NMI and ARI then move within the spread of their mean).
"""

import numpy as np
from scipy import sparse

from sclatent.cells.neighbors import exact_neighbors

N_BISECTIONS = 50
"""Steps and tolerance (in nats) of the search for a neighbourhood's bandwidth, as in LISI."""
TOLERANCE = 1e-5


def knn_accuracy(
    latent: np.ndarray, labels: np.ndarray, batches: np.ndarray, judged: np.ndarray, k: int = 15
) -> float:
    """Return the share of judged cells whose label the nearest cells of other batches agree on.

    The k nearest labelled cells in other batches vote; in a tie the label of the nearest cell
    among those tied wins. A cell whose label no other batch has is not judged, since no vote could
    be right; it does vote, so a latent that mixes such a type into others pays for it. With a
    single batch all other labelled cells vote.

    Parameters
    ----------
    latent : (B, L) array
    labels : (B,) array of int
        Codes of the labels; negative where a cell has none or is not to vote.
    batches : (B,) array of int
    judged : (B,) array of bool
        The cells to classify; those without a label are left out.

    Returns
    -------
    float
        Between 0 and 1; nan when no cell can be judged.
    """
    known = labels >= 0
    asked = np.flatnonzero(matchable(labels, batches) & judged)
    if not len(asked) or known.sum() < 2:
        return np.nan
    if len(np.unique(batches)) == 1:
        voters = np.flatnonzero(known)
        indices, _ = exact_neighbors(latent[voters], k)
        votes = labels[voters][indices[np.isin(voters, asked)]]
        return float((vote(votes) == labels[asked]).mean())
    n_right = 0
    for batch in np.unique(batches[asked]):
        queries = asked[batches[asked] == batch]
        voters = np.flatnonzero(known & (batches != batch))
        indices, _ = exact_neighbors(latent[voters], k, latent[queries])
        n_right += (vote(labels[voters][indices]) == labels[queries]).sum()
    return float(n_right / len(asked))


def matchable(labels: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Say which cells (B,) have a label that occurs in two batches (any label if there is one)."""
    known = labels >= 0
    if len(np.unique(batches)) == 1:
        return known
    pairs = np.unique(np.column_stack([labels[known], batches[known]]), axis=0)
    names, n_batches = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(labels, names[n_batches > 1]) & known


def vote(neighbors: np.ndarray) -> np.ndarray:
    """Return the commonest code of each row (Q, K); ties go to the one found first in the row."""
    weights = 1 + 0.5 ** np.arange(1, neighbors.shape[1] + 1) / neighbors.shape[1]
    ballots = np.zeros((len(neighbors), neighbors.max() + 1))
    np.add.at(ballots, (np.arange(len(neighbors))[:, None], neighbors), weights)
    return ballots.argmax(axis=1)


def kmeans_agreement(
    latent: np.ndarray, labels: np.ndarray, n_inits: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Return NMI and ARI of labels with k-means, means over independent initialisations.

    k is the number of labels. A single initialisation is mostly chance: its ARI was measured
    between 0.62 and 0.93 on one latent. NMI is normalised by the arithmetic mean of the entropies.

    Parameters
    ----------
    latent : (B, L) array
    labels : (B,) array of int

    Returns
    -------
    nmi : float
        Between 0 and 1; nan with fewer than two labels.
    ari : float
        Between -0.5 and 1, about 0 for chance; nan with fewer than two labels.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    n_labels = len(np.unique(labels))
    if n_labels < 2:
        return np.nan, np.nan
    scores = []
    for init in np.random.default_rng([seed, 1]).integers(2**31, size=n_inits):
        clusters = KMeans(n_labels, n_init=1, random_state=int(init)).fit_predict(latent)
        nmi = normalized_mutual_info_score(labels, clusters)
        scores.append((nmi, adjusted_rand_score(labels, clusters)))
    return tuple(float(score) for score in np.mean(scores, axis=0))


def nmi(latent: np.ndarray, labels: np.ndarray, n_inits: int = 20, seed: int = 0) -> float:
    """Return the mutual information of labels and k-means clusters, 0 to 1 (`kmeans_agreement`)."""
    return kmeans_agreement(latent, labels, n_inits, seed)[0]


def ari(latent: np.ndarray, labels: np.ndarray, n_inits: int = 20, seed: int = 0) -> float:
    """Return the adjusted Rand index of labels and k-means, -0.5 to 1 (`kmeans_agreement`)."""
    return kmeans_agreement(latent, labels, n_inits, seed)[1]


def lisi(indices: np.ndarray, distances: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the local inverse Simpson index of each cell: how many codes its neighbours share.

    A neighbour at distance d weighs exp(-beta d), beta such that the perplexity of the weights is
    a third of K (at most; with many equal cells it stays larger).
    Source: Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0.

    Parameters
    ----------
    indices, distances : (B, K) arrays
        Neighbours without the cell itself, K at least 6.
    codes : (B,) array of int
        Codes from 0.

    Returns
    -------
    (B,) array
        Between 1 and the number of codes.
    """
    weights = neighbor_weights(distances.astype(np.float64), indices.shape[1] // 3)
    n_codes = codes.max() + 1
    rows = np.arange(len(indices))[:, None]
    cells = (rows * n_codes + codes[indices]).ravel()
    shares = np.bincount(cells, weights=weights.ravel(), minlength=len(indices) * n_codes)
    return 1 / (shares.reshape(-1, n_codes) ** 2).sum(axis=1)


def neighbor_weights(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Return weights (B, K) that sum to 1 and have the perplexity, by bisection of the bandwidth.

    beta starts at 1 and doubles or halves until it is bracketed, as in the reference.
    """
    beta = np.ones(len(distances))
    low, high = np.zeros(len(distances)), np.full(len(distances), np.inf)
    weights = np.empty_like(distances)
    offset = distances - distances.min(axis=1, keepdims=True)  # keeps the exponentials from 0
    todo = np.arange(len(distances))
    for _ in range(N_BISECTIONS + 1):
        part = np.exp(-offset[todo] * beta[todo, None])
        total = part.sum(axis=1)
        entropy = np.log(total) + beta[todo] * (offset[todo] * part).sum(axis=1) / total
        weights[todo] = part / total[:, None]
        excess = entropy - np.log(perplexity)
        wide = excess > 0
        low[todo[wide]] = beta[todo[wide]]
        high[todo[~wide]] = beta[todo[~wide]]
        todo = todo[np.abs(excess) >= TOLERANCE]
        middle = (low[todo] + high[todo]) / 2
        beta[todo] = np.where(np.isinf(high[todo]), 2 * beta[todo], middle)
    return weights


def ilisi(latent: np.ndarray, batches: np.ndarray, k: int = 90) -> float:
    """Return how well batches mix: (median LISI of batches - 1) / (number of batches - 1).

    Returns
    -------
    float
        0: only cells of one batch around a cell; 1: all batches in equal shares. nan with a
        single batch or fewer than 7 cells.
    """
    batches = np.unique(batches, return_inverse=True)[1]
    n_batches = batches.max() + 1
    if n_batches < 2 or len(latent) < 7:
        return np.nan
    return float((np.median(lisi(*exact_neighbors(latent, k), batches)) - 1) / (n_batches - 1))


def clisi(latent: np.ndarray, labels: np.ndarray, k: int = 90) -> float:
    """Return how pure labels lie: (number - median LISI of labels) / (number - 1).

    Returns
    -------
    float
        1: only cells of one label around a cell; 0: all labels in equal shares. nan with a
        single label or fewer than 7 cells.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    n_labels = labels.max(initial=0) + 1
    if n_labels < 2 or len(latent) < 7:
        return np.nan
    median = np.median(lisi(*exact_neighbors(latent, k), labels))
    return float((n_labels - median) / (n_labels - 1))


def graph_connectivity(latent: np.ndarray, labels: np.ndarray, k: int = 15) -> float:
    """Return how connected labels are: the mean share of a label in its largest component.

    Two cells are joined when either is among the k nearest of the other (undirected); of this
    graph each label keeps the edges between its own cells. Packages that ask for strongly
    connected directed components give lower values.

    Returns
    -------
    float
        Above 0, up to 1: every label in one piece. nan with fewer than two cells.
    """
    if len(latent) < 2:
        return np.nan
    indices, _ = exact_neighbors(latent, k)
    rows = np.repeat(np.arange(len(latent)), indices.shape[1])
    same = labels[rows] == labels[indices.ravel()]
    edges = sparse.coo_matrix(
        (np.ones(same.sum()), (rows[same], indices.ravel()[same])), shape=(len(latent),) * 2
    )
    parts = sparse.csgraph.connected_components(edges, directed=False)[1]
    shares = [
        np.bincount(parts[labels == label]).max() / (labels == label).sum()
        for label in np.unique(labels)
    ]
    return float(np.mean(shares))


def preservation(
    latent: np.ndarray, batches: np.ndarray, references: dict[int, np.ndarray]
) -> float:
    """Return the share of a cell's reference neighbours within its batch that the latent keeps.

    Parameters
    ----------
    latent : (B, L) array
    batches : (B,) array of int
    references : dict
        Batch code to the reference neighbours (cells of the batch, K), counted within the batch.

    Returns
    -------
    float
        Mean over the batches, each of the same weight, between 0 and 1; nan without a batch.
    """
    shares = []
    for batch, reference in references.items():
        found, _ = exact_neighbors(latent[batches == batch], reference.shape[1])
        n_cells = len(found)
        own = np.arange(n_cells)[:, None] * n_cells
        shares.append(np.isin(own + found, own + reference).mean())
    return float(np.mean(shares)) if shares else np.nan
