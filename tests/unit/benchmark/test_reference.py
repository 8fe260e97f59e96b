"""The neighbours that latents are to preserve."""

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA

from sclatent.baselines.pca import log_normalise
from sclatent.benchmark.reference import batch_references, principal_components
from sclatent.cells.neighbors import exact_neighbors


def draw_counts(n_cells, n_genes):
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.5, 2.0, (5, n_genes))[rng.integers(5, size=n_cells)]
    return sparse.csr_matrix(rng.poisson(rates).astype(np.int32))


def test_components_are_those_of_sklearn_up_to_sign_with_both_solvers():
    for n_genes in (40, 300):
        values = log_normalise(draw_counts(200, n_genes), np.full(200, 300.0))
        found = principal_components(values, 12)
        expected = PCA(12, svd_solver="full").fit_transform(values.toarray().astype(float))
        assert found.shape == (200, 12)
        np.testing.assert_allclose(np.abs(found[:, :4]), np.abs(expected[:, :4]), atol=1e-3)
        np.testing.assert_allclose(found.var(axis=0), expected.var(axis=0), rtol=1e-4)


def test_blocks_change_nothing(monkeypatch):
    values = log_normalise(draw_counts(200, 300), np.full(200, 300.0))
    whole = principal_components(values, 5)
    monkeypatch.setattr("sclatent.benchmark.reference.BLOCK", 33)
    np.testing.assert_allclose(np.abs(principal_components(values, 5)), np.abs(whole), rtol=1e-3)


def test_each_batch_has_its_own_neighbors_and_small_batches_fewer():
    counts, batches = draw_counts(130, 60), np.repeat([0, 1, 2], [100, 28, 2])
    size = np.asarray(counts.sum(axis=1)).ravel()
    found = batch_references(counts, size, batches, 30)
    assert {batch: part.shape for batch, part in found.items()} == {0: (100, 30), 1: (28, 13)}
    alone = log_normalise(counts[:100], size[:100])
    expected, _ = exact_neighbors(principal_components(alone), 30)
    np.testing.assert_array_equal(found[0], expected)


def test_fewer_cells_than_genes_have_fewer_components():
    assert principal_components(log_normalise(draw_counts(10, 300), np.ones(10)), 30).shape == (
        10,
        9,
    )
