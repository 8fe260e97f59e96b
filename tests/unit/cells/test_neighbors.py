"""Nearest neighbours against scipy and by their properties."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from sclatent.cells.neighbors import approximate_neighbors, drop_self, exact_neighbors


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


def test_exact_neighbors_are_those_of_a_tree(points):
    indices, distances = exact_neighbors(points, 7)
    expected, where = cKDTree(points.astype(float)).query(points.astype(float), 8)
    np.testing.assert_array_equal(indices, where[:, 1:])
    np.testing.assert_allclose(distances, expected[:, 1:], rtol=1e-5)


def test_neighbors_of_queries_are_those_of_a_tree(points):
    indices, _ = exact_neighbors(points[:200], 5, points[200:])
    _, where = cKDTree(points[:200].astype(float)).query(points[200:].astype(float), 5)
    np.testing.assert_array_equal(indices, where)


def test_a_far_origin_changes_no_neighbor(points):
    near, _ = exact_neighbors(points.astype(float), 7)
    far, _ = exact_neighbors(points.astype(float) + 1e5, 7)
    np.testing.assert_array_equal(near, far)


@pytest.mark.parametrize("search", [exact_neighbors, lambda *a: approximate_neighbors(*a, seed=0)])
def test_no_cell_is_its_own_neighbor_even_among_duplicates(search):
    points = np.repeat(np.random.default_rng(1).normal(size=(6, 3)), 10, axis=0)
    indices, distances = search(points, 5)
    assert (indices != np.arange(60)[:, None]).all()
    assert (indices // 10 == np.arange(60)[:, None] // 10).all()
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_fewer_neighbors_come_back_where_there_are_fewer_points(points):
    assert exact_neighbors(points[:4], 15)[0].shape == (4, 3)
    assert exact_neighbors(points[:4], 15, points)[0].shape == (300, 4)


def test_dropping_self_removes_the_cell_or_else_the_farthest():
    indices = np.array([[0, 2, 1], [2, 1, 0], [0, 1, 3]])
    distances = np.array([[0.0, 1, 2], [0, 0, 1], [0, 0, 0]])
    kept, remaining = drop_self(indices, distances)
    assert kept.tolist() == [[2, 1], [2, 0], [0, 1]]
    assert remaining.tolist() == [[1, 2], [0, 1], [0, 0]]


def test_approximate_neighbors_are_nearly_exact_and_repeatable(monkeypatch):
    monkeypatch.setattr("sclatent.cells.neighbors.N_POINTS", 8)
    points = 1e3 + np.random.default_rng(2).normal(size=(1500, 8)).astype(np.float32)
    found, distances = approximate_neighbors(points, 10, seed=3)
    again, _ = approximate_neighbors(points, 10, seed=3)
    exact, _ = exact_neighbors(points, 10)
    np.testing.assert_array_equal(found, again)
    assert (found != np.arange(1500)[:, None]).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    rows = np.arange(1500)[:, None] * 1500
    assert np.isin(rows + found, rows + exact).mean() > 0.95
    between = np.linalg.norm(points[found].astype(float) - points[:, None].astype(float), axis=2)
    np.testing.assert_allclose(distances, between, rtol=1e-3)


def test_where_the_regions_hold_too_few_points_all_are_searched(monkeypatch):
    monkeypatch.setattr("sclatent.cells.neighbors.N_PROBES", 1)
    monkeypatch.setattr("sclatent.cells.neighbors.N_POINTS", 10)
    points = np.random.default_rng(3).normal(size=(300, 4)).astype(np.float32)
    found, _ = approximate_neighbors(points, 40, seed=0)
    assert (found >= 0).all()
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
