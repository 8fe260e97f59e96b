"""The neighbour graph: its weights, its file, its errors."""

import numpy as np
import pytest

from sclatent.cells.graph import GraphSettings, build_graph, read_graph, weigh, write_graph
from sclatent.cells.layout import import_umap
from sclatent.cells.neighbors import exact_neighbors
from sclatent.errors import InputError

NAMES = [f"cell{i}" for i in range(200)]


@pytest.fixture(scope="module")
def latent():
    return np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(latent):
    return build_graph(latent, NAMES, GraphSettings(n_neighbors=10), seed=0)


@pytest.mark.parametrize("n_copies", [1, 3, 40])
@pytest.mark.parametrize("scale", [0.01, 1, 1000])
def test_weights_are_those_of_umap_learn(latent, n_copies, scale):
    points = scale * np.repeat(latent[: 200 // n_copies], n_copies, axis=0)
    indices, distances = exact_neighbors(points, 10)
    distances[distances < 1e-5 * scale] = 0
    itself = np.arange(len(points), dtype=np.int32)[:, None]
    expected, *_ = import_umap().fuzzy_simplicial_set(
        points,
        n_neighbors=11,
        random_state=None,
        metric="euclidean",
        knn_indices=np.hstack([itself, indices]),
        knn_dists=np.hstack([np.zeros((len(points), 1), np.float32), distances]),
    )
    found = weigh(indices, distances)
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=0.0006)


def test_weights_are_symmetric_rounded_and_without_loops(graph):
    weights = graph.connectivities
    assert abs(weights - weights.T).max() == 0
    assert weights.diagonal().max() == 0
    assert weights.data.min() > 0
    assert weights.data.max() <= 1
    np.testing.assert_array_equal(weights.data, np.round(weights.data, 3))


def test_duplicate_cells_make_a_graph_of_finite_weights():
    latent = np.repeat(np.random.default_rng(1).normal(size=(10, 4)), 20, axis=0)
    graph = build_graph(latent, NAMES, GraphSettings(), seed=0)
    assert np.isfinite(graph.connectivities.data).all()
    assert (graph.indices != np.arange(200)[:, None]).all()


def test_a_graph_comes_back_from_its_file_and_equal_graphs_have_equal_bytes(graph, tmp_path):
    write_graph(tmp_path / "graph.npz", graph)
    back = read_graph(tmp_path / "graph.npz")
    write_graph(tmp_path / "again.npz", back)
    assert (tmp_path / "graph.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert back.cells.tolist() == NAMES
    assert back.exact
    assert (back.connectivities != graph.connectivities).nnz == 0
    np.testing.assert_array_equal(back.distances, graph.distances)
    with np.load(tmp_path / "graph.npz", allow_pickle=False) as content:
        assert content["n_neighbors"] == 10
        assert content["indices"].dtype == np.int32


def test_above_the_limit_neighbors_are_approximate_and_the_log_says_so(latent, monkeypatch, capsys):
    asked = []

    def approximate(latent, n_neighbors, seed):
        asked.append(seed)
        return exact_neighbors(latent, n_neighbors)

    monkeypatch.setattr("sclatent.cells.graph.approximate_neighbors", approximate)
    assert not build_graph(latent, NAMES, GraphSettings(exact_up_to=199), seed=3).exact
    assert asked == [3]
    assert "approximate (faiss), above 199 cells" in capsys.readouterr().out
    assert build_graph(latent, NAMES, GraphSettings(exact_up_to=200), seed=3).exact


def test_two_cells_are_refused():
    with pytest.raises(InputError, match="2 cells make no graph"):
        build_graph(np.zeros((2, 3)), ["a", "b"], GraphSettings(), seed=0)
