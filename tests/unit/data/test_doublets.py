import numpy as np
import pytest
import scipy.sparse as sp

from sclatent.data import doublets
from sclatent.data.doublets import find_doublets, judge, neighbour_scores
from sclatent.data.simulate import Simulation, simulate

CLEAR = Simulation(
    n_cells=600, n_genes=500, n_batches=1, n_types=4, type_strength=1.5, de_share=0.4, low_quality=0
)


def with_doublets(n_doublets):
    """Simulated cells, the last of which are sums of two cells of different types."""
    adata = simulate(CLEAR)
    rng = np.random.default_rng(1)
    kind = adata.obs["true_cell_type"].cat.codes.to_numpy()
    pairs = rng.integers(0, 500, size=(4 * n_doublets, 2))
    pairs = pairs[kind[pairs[:, 0]] // 2 != kind[pairs[:, 1]] // 2][:n_doublets]
    counts = adata.X[:500]
    return sp.vstack([counts, counts[pairs[:, 0]] + counts[pairs[:, 1]]], format="csr")


def test_doublets_of_different_types_are_found_and_few_others_are_removed():
    found = find_doublets(with_doublets(30), 0.06, 0, "b")
    assert found.doubt == ""
    assert found.called[500:].mean() > 0.6
    assert found.called[:500].mean() < 0.03
    assert np.median(found.scores[500:]) > np.quantile(found.scores[:500], 0.95)


def test_scores_are_probabilities_and_the_seed_decides_them():
    counts = with_doublets(10)
    one, two, other = (find_doublets(counts, 0.06, seed, "b").scores for seed in (0, 0, 1))
    assert ((one > 0) & (one < 1)).all()
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_scores_rise_and_fall_with_scanpys():
    scanpy = pytest.importorskip("scanpy")
    import anndata

    counts = with_doublets(30)
    adata = anndata.AnnData(counts.astype(np.float32))
    scanpy.pp.scrublet(adata, expected_doublet_rate=0.06, verbose=False, use_approx_neighbors=False)
    ours = find_doublets(counts, 0.06, 0, "b").scores
    assert np.corrcoef(adata.obs["doublet_score"], ours)[0, 1] > 0.6


def test_where_cells_and_simulated_doublets_mix_evenly_the_score_is_near_the_prior():
    latent = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    assert np.median(neighbour_scores(latent, 1000, 0.06)) == pytest.approx(0.06, rel=0.15)


def test_few_cells_are_not_searched_and_that_is_said(capsys):
    found = find_doublets(simulate(CLEAR).X[:60], 0.06, 0, "tiny")
    assert "batch tiny: 60 cells" in capsys.readouterr().out
    assert not found.called.any()
    assert np.isnan(found.scores).all()


def two_modes(share_high):
    rng = np.random.default_rng(0)
    n_high = int(1000 * share_high)
    return np.r_[rng.normal(0.1, 0.02, 1000 - n_high), rng.normal(0.6, 0.03, n_high)]


def test_a_credible_threshold_lies_in_the_valley():
    found = judge(two_modes(0.05), two_modes(0.5), 0.06, "b")
    assert 0.2 < found.threshold < 0.5
    assert found.called.sum() == 50


@pytest.mark.parametrize(
    ("observed", "simulated", "words"),
    [
        (two_modes(0.3), two_modes(0.5), "30.0% of the cells lie above it, 6.0% are expected"),
        (two_modes(0.01), two_modes(0.05), "only 5.0% of the simulated doublets"),
        (two_modes(0.1), np.full(1000, 0.3), "no valley"),
    ],
)
def test_a_threshold_that_is_not_credible_warns_and_removes_nothing(
    observed, simulated, words, capsys
):
    found = judge(observed, simulated, 0.06, "b")
    printed = capsys.readouterr().out
    assert "WARNING batch b" in printed
    assert words in printed
    assert not found.called.any()


def test_a_batch_with_few_genes_is_not_searched(monkeypatch):
    monkeypatch.setattr(doublets, "MIN_GENES", 1000)
    assert find_doublets(with_doublets(5), 0.06, 0, "b").doubt == "too few"
