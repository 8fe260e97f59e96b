import numpy as np
import pytest
import threadpoolctl
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from sclatent.baselines.pca import LogNormalised, Pca, fit_pca, log_normalise
from sclatent.data.compact import compact
from sclatent.data.compressed import BLOCK
from sclatent.data.stored import StoredCounts, write_counts


@pytest.fixture
def values():
    random = np.random.default_rng(0)
    rate = np.exp(random.normal(0, 1, (300, 3)) @ random.normal(0, 0.5, (3, 50)))
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    return log_normalise(counts, np.asarray(counts.sum(1)).ravel())


TRAIN = np.arange(300) % 3 != 0


def test_it_equals_scikit_learns_up_to_the_sign(values):
    ours = fit_pca(values, TRAIN, Pca(5))
    dense = values.toarray().astype(np.float64)
    reference = PCA(5, svd_solver="full").fit(dense[TRAIN])
    theirs = reference.transform(dense)
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-4)


def test_held_out_cells_do_not_move_the_others(values):
    changed = values.copy()
    changed[np.flatnonzero(~TRAIN)[:20]] *= 3
    before, after = fit_pca(values, TRAIN, Pca(5)), fit_pca(changed.tocsr(), TRAIN, Pca(5))
    assert np.array_equal(before[TRAIN], after[TRAIN])


def test_the_sign_does_not_depend_on_the_order_of_the_cells(values):
    order = np.random.default_rng(1).permutation(300)
    ours, permuted = fit_pca(values, TRAIN, Pca(5)), fit_pca(values[order], TRAIN[order], Pca(5))
    np.testing.assert_allclose(ours[order], permuted, atol=1e-4)


def test_threads_do_not_change_it(values):
    results = []
    for n_threads in (1, 2):
        with threadpoolctl.threadpool_limits(n_threads):
            results.append(fit_pca(values, TRAIN, Pca(5)))
    np.testing.assert_allclose(*results, atol=1e-5)


def test_more_components_than_genes_are_all_of_them(values):
    assert fit_pca(values[:, :4], TRAIN, Pca(30)).shape == (300, 4)


def test_log_normalised_cells_have_the_same_total():
    counts = csr_matrix(np.array([[1, 3, 0], [10, 0, 30]]))
    total = np.expm1(log_normalise(counts, np.array([4, 40])).toarray()).sum(1)
    np.testing.assert_allclose(total, 1e4, rtol=1e-5)


def test_counts_on_disk_give_the_components_of_the_whole_matrix(tmp_path):
    random = np.random.default_rng(0)
    rate = np.exp(random.normal(0, 1, (2 * BLOCK + 9, 3)) @ random.normal(0, 0.5, (3, 20)))
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    size, train = np.asarray(counts.sum(1)).ravel(), random.random(len(rate)) < 0.8
    write_counts(tmp_path, [compact(counts).block], 20)
    held = (compact(counts), StoredCounts(tmp_path))
    memory, disk = (fit_pca(LogNormalised(each, size), train, Pca(5)) for each in held)
    assert np.array_equal(memory, disk)
    dense = log_normalise(counts, size).toarray().astype(np.float64)
    theirs = PCA(5, svd_solver="full").fit(dense[train]).transform(dense)
    np.testing.assert_allclose(disk, theirs * np.sign((disk * theirs).sum(0)), atol=1e-4)
