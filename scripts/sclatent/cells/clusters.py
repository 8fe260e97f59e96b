"""Clusters of cells: Leiden on the neighbour graph, at several resolutions.

Leiden (Traag et al. 2019, doi:10.1038/s41598-019-41695-z) maximises the modularity with a
resolution parameter, in rounds: the first few raise it, the others cost as much and change next to
nothing. igraph's implementation is the default; leidenalg optimises the same objective.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    import igraph
    import pandas as pd

LEAST_GAIN = 1e-4
"""Modularity that a round must add for another to follow: less than it differs between seeds."""


@dataclass(frozen=True)
class ClusterSettings:
    """The config's section `clusters`; `space` is always ``latent``."""

    space: str = "latent"
    backend: str = "igraph"
    resolutions: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    main_resolution: float = 1.0
    n_iterations: int = 10


def column_name(resolution: float) -> str:
    """Return the column of a resolution, such as ``leiden_1.0``."""
    return f"leiden_{float(resolution)}"


def cluster_cells(
    cells, connectivities: sparse.csr_matrix, settings: ClusterSettings, seed: int
) -> pd.DataFrame:
    """Cluster cells at each resolution.

    Parameters
    ----------
    cells : sequence of B names
    connectivities : (B, B) symmetric CSR
    seed : int
        Of Leiden's order of moves; every resolution starts from it anew.

    Returns
    -------
    DataFrame
        Columns `cell` and one per resolution; clusters count from 0 by decreasing size.

    Raises
    ------
    InputError
        When the main resolution is not among the resolutions.
    """
    import pandas as pd

    if float(settings.main_resolution) not in map(float, settings.resolutions):
        there = ", ".join(map(str, settings.resolutions))
        what = f"{settings.main_resolution} is not among clusters.resolutions ({there})"
        raise InputError(
            problem("E108", "config clusters.main_resolution", what, "choose one of them")
        )
    graph = to_igraph(connectivities)
    table = pd.DataFrame({"cell": np.asarray(cells, dtype=str)})
    for resolution in settings.resolutions:
        clusters = by_size(leiden(graph, resolution, settings, seed))
        sizes = np.bincount(clusters)
        table[column_name(resolution)] = clusters
        sizes = f"of {sizes[-1]:,} to {sizes[0]:,} cells"
        print(f"resolution {resolution}: {clusters.max() + 1} clusters {sizes}")
    return table


def to_igraph(connectivities: sparse.csr_matrix) -> igraph.Graph:
    """Return the weighted undirected graph of a symmetric matrix (B, B)."""
    import igraph

    upper = sparse.triu(connectivities, k=1, format="coo")
    edges = np.column_stack([upper.row, upper.col])
    graph = igraph.Graph(n=connectivities.shape[0], edges=edges)
    graph.es["weight"] = upper.data.astype(np.float64)
    return graph


def leiden(
    graph: igraph.Graph, resolution: float, settings: ClusterSettings, seed: int
) -> np.ndarray:
    """Return the cluster of each vertex (B,), numbered as Leiden found them."""
    if settings.backend == "leidenalg":
        import leidenalg

        partition = leidenalg.find_partition(
            graph,
            leidenalg.RBConfigurationVertexPartition,
            weights="weight",
            resolution_parameter=resolution,
            n_iterations=settings.n_iterations,
            seed=seed,
        )
        return np.asarray(partition.membership)
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    clusters, quality = None, -np.inf
    for _ in range(settings.n_iterations):
        partition = graph.community_leiden(
            objective_function="modularity",
            weights="weight",
            resolution=resolution,
            initial_membership=clusters,
            n_iterations=1,
        )
        clusters, before, quality = partition.membership, quality, partition.quality
        if quality < before + LEAST_GAIN:
            break
    igraph.set_random_number_generator(random)
    return np.asarray(clusters)


def by_size(clusters: np.ndarray) -> np.ndarray:
    """Renumber clusters from 0 by decreasing size; equal sizes by their first cell."""
    names, first, inverse, sizes = np.unique(
        clusters, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(names), dtype=np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(names))
    return rank[inverse]
