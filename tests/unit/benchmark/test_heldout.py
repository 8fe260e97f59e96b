import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_matrix

from sclatent.benchmark.heldout import choose, null_likelihood, score_model
from sclatent.models.dca import Dca, build_dca
from sclatent.models.likelihoods import dispersion_from_moments
from sclatent.models.posterior import likelihood
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells, Rows
from sclatent.training.loop import fit
from sclatent.training.plan import Training

ROWS = Rows(np.arange(0, 200), np.arange(200, 240), np.arange(240, 300))


@pytest.fixture(scope="module")
def cells() -> Cells:
    """300 cells of two types that differ in half of 30 genes, in two batches."""
    random = np.random.default_rng(0)
    kind, batch = random.integers(0, 2, (2, 300))
    rate = np.where((kind[:, None] == 1) & (np.arange(30) < 15), 12.0, 3.0)
    rate[batch == 1, 20:] *= 3
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    return Cells(counts, batch, np.full(300, -1), ["a", "b"])


def test_the_null_model_equals_scipys(cells):
    found = null_likelihood(cells, ROWS.train, ROWS.heldout)
    for row, value in zip(ROWS.heldout, found, strict=True):
        train = ROWS.train[cells.batch[ROWS.train] == cells.batch[row]]
        counts = cells.counts[train]
        share = np.asarray(counts.sum(0)).ravel() + 0.5
        moments = cells.counts.moments(train)
        theta = dispersion_from_moments(moments, cells.library_size[train]).double().exp() / 2
        mu, theta = cells.library_size[row] * share / share.sum(), theta.numpy()
        x = cells.counts[row].toarray()[0]
        expected = stats.nbinom.logpmf(x, theta, theta / (theta + mu)).sum()
        assert value == pytest.approx(expected, rel=1e-4)


def test_a_trained_model_beats_the_null_model(cells):
    model = build_scvi(cells, ROWS.train, Scvi(n_latent=3, n_hidden=16), seed=0)
    fit(model, cells, ROWS.train, ROWS.validation, Training(minibatch=64, n_steps=150), seed=0)
    row = score_model(model, cells, ROWS, 30, 1000, seed=0).iloc[0]
    assert row["kind"] == "marginal"
    assert row["log_likelihood"] > row["null"] + 3
    assert row["null"] > -200
    assert row["elbo"] <= row["log_likelihood"]
    assert 1 / 30 <= row["ess_minimum"] <= row["ess_median"] <= 1
    assert (row["n_cells"], row["n_train"], row["n_samples"]) == (60, 200, 30)


def test_the_row_is_of_held_out_cells_with_their_standard_error(cells):
    model = build_scvi(cells, ROWS.train, Scvi(n_latent=3, n_hidden=16), seed=0)
    row = score_model(model, cells, ROWS, 5, 20, seed=3).iloc[0]
    chosen = choose(ROWS.heldout, 20, 3)
    values = likelihood(model, cells, chosen, 5, 3).log_likelihood
    assert row["log_likelihood"] == pytest.approx(values.mean())
    assert row["log_likelihood_se"] == pytest.approx(stats.sem(values), rel=1e-5)


def test_dcas_value_is_marked(cells):
    model = build_dca(cells, ROWS.train, Dca(n_latent=3, n_hidden=16), seed=0)
    row = score_model(model, cells, ROWS, 2, 20, seed=0).iloc[0]
    assert row["kind"] == "encoded"
    assert row["elbo"] == row["log_likelihood"]
    assert row["ess_minimum"] == 1


def test_every_model_of_a_seed_is_measured_on_the_same_cells():
    heldout = np.arange(50, 150)
    chosen = choose(heldout, 30, seed=1)
    assert np.array_equal(chosen, choose(heldout, 30, seed=1))
    assert len(set(chosen)) == 30
    assert set(chosen) < set(heldout)
    assert not np.array_equal(chosen, choose(heldout, 30, seed=2))
    assert np.array_equal(choose(heldout, 100, seed=1), heldout)
