"""Nearest neighbours of cells: exact, and approximate where exact would take too long.

Distances are Euclidean. A cell is never its own neighbour, also where others equal it.
"""

import numpy as np


def exact_neighbors(points: np.ndarray, n_neighbors: int, queries: np.ndarray | None = None):
    """Find the nearest points by comparing each query with every point.

    scikit-learn's brute force works in blocks, so memory grows with the number of queries times
    `n_neighbors`. The points are centred in double precision first: the result does not depend on
    where the origin lies.

    Parameters
    ----------
    points : (B, L) array
    n_neighbors : int
        Neighbours wanted; fewer come back where there are not so many points.
    queries : (Q, L) array, optional
        Whose neighbours; the points themselves, each without itself, when it is not given.

    Returns
    -------
    indices : (Q, n_neighbors) int32 array
    distances : (Q, n_neighbors) float32 array, increasing along a row
    """
    from sklearn.neighbors import NearestNeighbors

    points = np.asarray(points, dtype=np.float64)
    centre = points.mean(axis=0)
    n_neighbors = min(n_neighbors, len(points) - (queries is None))
    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute", n_jobs=1)
    search.fit(points - centre)
    if queries is None:
        distances, indices = search.kneighbors()
    else:
        distances, indices = search.kneighbors(np.asarray(queries, dtype=np.float64) - centre)
    return indices.astype(np.int32), distances.astype(np.float32)


def approximate_neighbors(points: np.ndarray, n_neighbors: int, seed: int):
    """Find almost the nearest points by descending a neighbour graph (pynndescent).

    Rows that the descent leaves incomplete are filled exactly. Returns what `exact_neighbors`
    returns; equal seeds give equal results.
    """
    from pynndescent import NNDescent

    n_neighbors = min(n_neighbors, len(points) - 1)
    points = np.ascontiguousarray(points, dtype=np.float32)
    descent = NNDescent(points, n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1)
    indices, distances = descent.neighbor_graph
    indices, distances = drop_self(indices, distances)
    broken = np.flatnonzero((indices < 0).any(axis=1))
    if len(broken):
        filled = exact_neighbors(points, n_neighbors + 1, points[broken])
        indices[broken], distances[broken] = drop_self(*filled, rows=broken)
    return indices, distances


def drop_self(indices: np.ndarray, distances: np.ndarray, rows: np.ndarray | None = None):
    """Remove each row's own cell, or its farthest neighbour where equal cells crowded it out.

    Parameters
    ----------
    indices, distances : (Q, K) arrays
    rows : (Q,) array, optional
        The cell of each row; row i is cell i when it is not given.

    Returns
    -------
    indices, distances : (Q, K - 1) int32 and float32 arrays
    """
    rows = np.arange(len(indices)) if rows is None else rows
    keep = indices != rows[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(indices), indices.shape[1] - 1)
    kept = indices[keep].reshape(shape), distances[keep].reshape(shape)
    return kept[0].astype(np.int32), kept[1].astype(np.float32)
