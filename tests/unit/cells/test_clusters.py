"""Leiden: what it finds in planted groups, how clusters are numbered, and repeatability."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from sclatent.cells.clusters import ClusterSettings, by_size, cluster_cells, leiden
from sclatent.cells.graph import GraphSettings, build_graph
from sclatent.errors import InputError

SIZES = [50, 120, 80]


@pytest.fixture(scope="module")
def groups():
    return np.repeat(np.arange(3), SIZES)


@pytest.fixture(scope="module")
def graph(groups):
    rng = np.random.default_rng(0)
    latent = np.eye(3, 6)[groups] * 12 + rng.normal(size=(250, 6))
    return build_graph(latent, [f"c{i}" for i in range(250)], GraphSettings(), seed=0)


@pytest.mark.parametrize("backend", ["igraph", "leidenalg"])
def test_planted_groups_are_found_and_numbered_by_size(backend, graph, groups):
    settings = ClusterSettings(backend=backend, resolutions=(0.1, 1), main_resolution=1.0)
    table = cluster_cells(graph.cells, graph.connectivities, settings, seed=0)
    assert table.columns.tolist() == ["cell", "leiden_0.1", "leiden_1.0"]
    assert adjusted_rand_score(groups, table["leiden_0.1"]) == 1
    assert table["leiden_0.1"].value_counts().sort_index().tolist() == [120, 80, 50]


def test_equal_seeds_give_equal_clusters_and_leave_python_s_generator_alone(graph):
    import random

    random.seed(1)
    state = random.getstate()
    settings = ClusterSettings()
    one = cluster_cells(graph.cells, graph.connectivities, settings, seed=5)
    two = cluster_cells(graph.cells, graph.connectivities, settings, seed=5)
    assert one.equals(two)
    assert random.getstate() == state


def test_a_higher_resolution_gives_no_fewer_clusters(graph):
    table = cluster_cells(graph.cells, graph.connectivities, ClusterSettings(), seed=0)
    n_clusters = [table[name].nunique() for name in table.columns[1:]]
    assert n_clusters == sorted(n_clusters)


def test_a_main_resolution_that_is_not_computed_is_refused(graph):
    settings = ClusterSettings(resolutions=(0.5, 2.0), main_resolution=1.0)
    with pytest.raises(InputError, match=r"1\.0 is not among clusters\.resolutions \(0\.5, 2\.0\)"):
        cluster_cells(graph.cells, graph.connectivities, settings, seed=0)


def test_clusters_of_equal_size_are_numbered_by_their_first_cell():
    assert by_size(np.array([7, 7, 3, 3, 5])).tolist() == [0, 0, 1, 1, 2]
    assert by_size(np.array([5, 3, 3, 7, 7])).tolist() == [2, 0, 0, 1, 1]


def test_rounds_end_when_one_adds_next_to_nothing():
    qualities = [0.5, 0.7, 0.70001, 0.8]
    starts = []

    class Answers:
        def community_leiden(self, initial_membership, n_iterations, **options):
            assert n_iterations == 1
            starts.append(initial_membership)
            return SimpleNamespace(membership=[len(starts)], quality=qualities[len(starts) - 1])

    assert leiden(Answers(), 1.0, ClusterSettings(), seed=0).tolist() == [3]
    assert starts == [None, [1], [2]]
    starts.clear()
    assert leiden(Answers(), 1.0, ClusterSettings(n_iterations=2), seed=0).tolist() == [2]
