"""The neighbour graph of a latent: nearest neighbours and their UMAP connectivities.

The connectivities are those of UMAP's fuzzy simplicial set (McInnes et al. 2018, arXiv:1802.03426):
symmetric weights in (0, 1] that adapt to the local density. They are rounded to three decimals,
so that the last bits of a distance decide no cluster.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sclatent import files
from sclatent.cells.neighbors import approximate_neighbors, exact_neighbors
from sclatent.errors import InputError, problem

N_BISECTIONS = 64
"""Steps of the search for a cell's bandwidth, as in umap-learn."""
LEAST_BANDWIDTH = 1e-3
"""Times the mean distance of a cell's neighbours, the cell itself counted, as in umap-learn."""


@dataclass(frozen=True)
class GraphSettings:
    """The config's section `graph`."""

    n_neighbors: int = 15
    exact_up_to: int = 50000


@dataclass(frozen=True)
class Graph:
    """Neighbours of B cells.

    Attributes
    ----------
    cells : (B,) array of names
    indices, distances : (B, n_neighbors) int32 and float32 arrays, without the cell itself
    connectivities : (B, B) symmetric CSR of float32
    exact : bool
        Whether every cell was compared with every other.
    """

    cells: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    connectivities: sparse.csr_matrix
    exact: bool


def build_graph(latent: np.ndarray, cells, settings: GraphSettings, seed: int) -> Graph:
    """Find the neighbours of each cell and weigh them.

    Parameters
    ----------
    latent : (B, L) array
    cells : sequence of B names
    seed : int
        Of the approximate search; the exact one needs none.

    Raises
    ------
    InputError
        When there are fewer than three cells.
    """
    n_cells = len(latent)
    if n_cells < 3:
        raise InputError(problem("E237", "graph", f"{n_cells} cells make no graph", "loosen qc"))
    exact = n_cells <= settings.exact_up_to
    if exact:
        indices, distances = exact_neighbors(latent, settings.n_neighbors)
    else:
        indices, distances = approximate_neighbors(latent, settings.n_neighbors, seed)
    connectivities = weigh(indices, distances)
    how = "exact" if exact else f"approximate (faiss), above {settings.exact_up_to:,} cells"
    print(f"{indices.shape[1]} nearest neighbours of {n_cells:,} cells: {how}")
    n_parts = sparse.csgraph.connected_components(connectivities, directed=False)[0]
    print(f"{connectivities.nnz // 2:,} edges; {n_parts} connected part(s)")
    return Graph(np.asarray(cells, dtype=str), indices, distances, connectivities, exact)


def weigh(indices: np.ndarray, distances: np.ndarray) -> sparse.csr_matrix:
    """Return UMAP's connectivities (B, B) of the neighbours (B, K), rounded to 3 decimals.

    An edge is as strong as the fuzzy union of its two directions. Written here because umap-learn
    takes five seconds to import; a test holds it to umap-learn's own function.
    """
    n_cells, n_neighbors = indices.shape
    rows = np.arange(0, n_cells * n_neighbors + 1, n_neighbors)
    shape = (n_cells, n_cells)
    one_way = sparse.csr_matrix((memberships(distances).ravel(), indices.ravel(), rows), shape)
    graph = (one_way + one_way.T - one_way.multiply(one_way.T)).tocsr()
    graph.data = np.round(graph.data, 3).astype(np.float32)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def memberships(distances: np.ndarray) -> np.ndarray:
    """Return how strongly each cell is joined to its neighbours (B, K), before symmetry.

    The nearest neighbour at a distance above 0 has strength 1; beyond it the strength falls as
    exp(-distance / bandwidth), the bandwidth such that a cell's strengths sum to log2(K + 1).
    """
    distances = distances.astype(np.float64)
    nearest = np.where(distances > 0, distances, np.inf).min(axis=1, keepdims=True)
    beyond = np.maximum(distances - np.where(np.isinf(nearest), 0, nearest), 0)
    target = np.log2(distances.shape[1] + 1)
    low, high = np.zeros((len(distances), 1)), np.full((len(distances), 1), np.inf)
    bandwidth = np.ones((len(distances), 1))
    for _ in range(N_BISECTIONS):
        wide = np.exp(-beyond / bandwidth).sum(axis=1, keepdims=True) > target
        low, high = np.where(wide, low, bandwidth), np.where(wide, bandwidth, high)
        bandwidth = np.where(np.isinf(high), 2 * bandwidth, (low + high) / 2)
    mean = np.where(np.isinf(nearest), distances.mean(), distances.mean(axis=1, keepdims=True))
    least = LEAST_BANDWIDTH * mean * distances.shape[1] / (distances.shape[1] + 1)
    return np.exp(-beyond / np.maximum(bandwidth, np.maximum(least, np.finfo(float).tiny)))


def write_graph(path, graph: Graph) -> None:
    """Write a graph as a compressed npz without pickles."""
    content = {
        "cells": graph.cells,
        "indices": graph.indices,
        "distances": graph.distances,
        "data": graph.connectivities.data,
        "col": graph.connectivities.indices.astype(np.int32),
        "indptr": graph.connectivities.indptr.astype(np.int64),
        "n_neighbors": np.int32(graph.indices.shape[1]),
        "exact": np.bool_(graph.exact),
    }
    with files.safely(path, hashed=True) as partial:
        np.savez_compressed(partial, **content)


def read_graph(path) -> Graph:
    """Read what `write_graph` wrote."""
    with np.load(files.verified(path), allow_pickle=False) as content:
        parts = {name: content[name] for name in content.files}
    n_cells = len(parts["cells"])
    connectivities = sparse.csr_matrix(
        (parts["data"], parts["col"], parts["indptr"]), shape=(n_cells, n_cells)
    )
    neighbors = parts["indices"], parts["distances"]
    return Graph(parts["cells"], *neighbors, connectivities, bool(parts["exact"]))
