"""Nearest neighbours of cells: exact, and approximate where exact would take too long.

Distances are Euclidean. A cell is never its own neighbour, also where others equal it.
"""

import numpy as np

N_POINTS = 160  # of a region, on average: the time then grows with the points, not faster
N_PROBES = (
    64  # regions searched for each point: recall 0.98 to 0.99 with 200,000 points in 30 dimensions
)
N_DRAWN = 64  # points of a region, at most, that k-means draws
WIDTH = 16  # numbers that an instruction compares; faiss is slow with what is left over


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
    """Find almost the nearest points: those of the regions that lie nearest to each (faiss).

    K-means divides the points into regions of about `N_POINTS`, and a point is compared with those
    of the `N_PROBES` regions whose centres lie nearest (an inverted file; Sivic and Zisserman 2003,
    doi:10.1109/ICCV.2003.1238663). Points whose regions hold too few are compared with all. Points
    of a region follow one another, so that what they are compared with is still in the cache.
    Returns what `exact_neighbors` returns; equal seeds give equal results.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    n_points = len(points)
    n_neighbors = min(n_neighbors, n_points - 1)
    points = points - points.mean(axis=0, dtype=np.float64)
    points = np.pad(points.astype(np.float32), [(0, 0), (0, -points.shape[1] % WIDTH)])
    n_dimensions = points.shape[1]
    n_regions = -(-n_points // N_POINTS)
    centres = faiss.IndexFlatL2(n_dimensions)
    index = faiss.IndexIVFFlat(centres, n_dimensions, n_regions)
    index.cp.seed, index.cp.min_points_per_centroid = seed % 2**31, 1
    index.cp.max_points_per_centroid = N_DRAWN
    index.nprobe = N_PROBES
    index.train(points)
    order = np.argsort(centres.search(points, 1)[1].ravel(), kind="stable")
    index.add_with_ids(points[order], order)
    squares = np.empty((n_points, n_neighbors + 1), dtype=np.float32)
    indices = np.empty(squares.shape, dtype=np.int64)
    squares[order], indices[order] = index.search(points[order], n_neighbors + 1)
    few = np.flatnonzero((indices < 0).any(axis=1))
    if len(few):
        everywhere = faiss.IndexFlatL2(n_dimensions)
        everywhere.add(points)
        squares[few], indices[few] = everywhere.search(points[few], n_neighbors + 1)
    return drop_self(indices, np.sqrt(np.maximum(squares, 0)))


def drop_self(indices: np.ndarray, distances: np.ndarray):
    """Remove each row's own cell, or its farthest neighbour where equal cells crowded it out.

    Parameters
    ----------
    indices, distances : (B, K) arrays
        Row i is cell i.

    Returns
    -------
    indices, distances : (B, K - 1) int32 and float32 arrays
    """
    keep = indices != np.arange(len(indices))[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(indices), indices.shape[1] - 1)
    kept = indices[keep].reshape(shape), distances[keep].reshape(shape)
    return kept[0].astype(np.int32), kept[1].astype(np.float32)
