from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from sclatent.data import doublets
from sclatent.data.blocks import in_memory
from sclatent.data.doublets import best_genes, deal, judge, neighbour_scores, search_doublets
from sclatent.data.simulate import Simulation, simulate

CLEAR = Simulation(
    n_cells=600, n_genes=500, n_batches=1, n_types=4, type_strength=1.5, de_share=0.4, low_quality=0
)


def find_doublets(counts, seed=0):
    """Return the scores of the cells of one batch, and which are called doublets."""
    n_cells = counts.shape[0]
    batch, good = np.full(n_cells, "b"), np.ones(n_cells, dtype=bool)
    return search_doublets(in_memory(counts), batch, good, 0.06, seed)


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
    scores, called = find_doublets(with_doublets(30))
    assert called[500:].mean() > 0.6
    assert called[:500].mean() < 0.03
    assert np.median(scores[500:]) > np.quantile(scores[:500], 0.95)


def test_scores_are_probabilities_and_the_seed_decides_them():
    counts = with_doublets(10)
    one, two, other = (find_doublets(counts, seed)[0] for seed in (0, 0, 1))
    assert ((one > 0) & (one < 1)).all()
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_scores_rise_and_fall_with_scanpys():
    scanpy = pytest.importorskip("scanpy")
    import anndata

    counts = with_doublets(30)
    adata = anndata.AnnData(counts.astype(np.float32))
    scanpy.pp.scrublet(adata, expected_doublet_rate=0.06, verbose=False, use_approx_neighbors=False)
    ours, _ = find_doublets(counts)
    assert np.corrcoef(adata.obs["doublet_score"], ours)[0, 1] > 0.6


def test_where_cells_and_simulated_doublets_mix_evenly_the_score_is_near_the_prior():
    latent = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    assert np.median(neighbour_scores(latent, 1000, 0.06)) == pytest.approx(0.06, rel=0.15)


def test_few_cells_are_not_searched_and_that_is_said(capsys):
    counts = in_memory(simulate(CLEAR).X[:60])
    batch, good = np.full(60, "tiny"), np.ones(60, dtype=bool)
    scores, called = search_doublets(counts, batch, good, 0.06, 0)
    assert "batch tiny: 60 cells" in capsys.readouterr().out
    assert not called.any()
    assert np.isnan(scores).all()


def test_each_batch_is_searched_within_itself_and_only_its_good_cells():
    counts = with_doublets(30)
    batch = np.where(np.arange(530) % 2, "odd", "even")
    good = np.arange(530) % 10 > 1
    scores, called = search_doublets(in_memory(counts), batch, good, 0.06, 0)
    assert (np.isnan(scores) == ~good).all()
    rows = np.flatnonzero(good & (batch == "odd"))
    alone = find_doublets(counts[rows])
    np.testing.assert_array_equal(scores[rows], alone[0])
    np.testing.assert_array_equal(called[rows], alone[1])


def test_the_size_of_the_blocks_that_are_read_changes_nothing(monkeypatch):
    counts = with_doublets(30)
    scores, called = find_doublets(counts)
    monkeypatch.setattr("sclatent.data.blocks.VALUES", 5000)
    again = find_doublets(counts)
    np.testing.assert_array_equal(again[0], scores)
    np.testing.assert_array_equal(again[1], called)


def test_the_number_of_threads_changes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(doublets, "MAX_CELLS", 100)
    batch, good = np.where(np.arange(530) % 2, "odd", "even"), np.ones(530, dtype=bool)
    given = in_memory(with_doublets(30)), batch, good, 0.06, 0
    capsys.readouterr()
    (one, called), said = search_doublets(*given), capsys.readouterr().out
    two, also_called = search_doublets(*given, n_threads=3)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(called, also_called)
    assert capsys.readouterr().out == said


def test_counts_are_read_as_often_however_many_parts_there_are(monkeypatch):
    counts = in_memory(with_doublets(30))
    batch, good, reads = np.full(530, "b"), np.ones(530, dtype=bool), []

    def blocks(rows):
        reads.append(rows)
        return counts.blocks(rows)

    for most in (10_000, 150):
        monkeypatch.setattr(doublets, "MAX_CELLS", most)
        search_doublets(replace(counts, blocks=blocks), batch, good, 0.06, 0)
    assert len(reads) == 2 * 3


def test_genes_of_fewer_than_three_cells_are_not_chosen():
    variance, seen = np.array([[5.0, 1, 3, 2]]), np.array([[False, True, True, True]])
    assert best_genes(variance, seen).tolist() == [[-1, 0, 1, 2]]


def test_each_batch_has_the_most_variable_of_its_own_genes(monkeypatch):
    monkeypatch.setattr(doublets, "N_GENES", 2)
    place = best_genes(np.array([[1.0, 3, 2], [3, 0, 1]]), np.ones((2, 3), dtype=bool))
    assert place.tolist() == [[-1, 0, 1], [0, -1, 1]]


def test_a_large_batch_is_searched_in_random_parts_that_share_a_threshold(monkeypatch, capsys):
    monkeypatch.setattr(doublets, "MAX_CELLS", 300)
    assert [len(part) for part in deal(np.arange(530), 0)] == [265, 265]
    assert sorted(np.concatenate(deal(np.arange(530), 0))) == list(range(530))
    batch, good = np.full(530, "large"), np.ones(530, dtype=bool)
    scores, called = search_doublets(in_memory(with_doublets(30)), batch, good, 0.06, 0)
    assert capsys.readouterr().out.count("batch large: ") == 1
    assert np.isfinite(scores).all()
    assert called[500:].mean() > 0.6
    assert called[:500].mean() < 0.03


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
    assert np.isnan(find_doublets(with_doublets(5))[0]).all()
