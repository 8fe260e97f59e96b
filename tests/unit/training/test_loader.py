from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.data.stored import StoredCounts, write_counts
from sclatent.errors import InputError
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells, Covariates, gather_cells, seen_labels, split_rows
from sclatent.training.loop import fit, gather
from sclatent.training.order import RUN, draw_epoch, draw_labelled, shuffled, slices
from sclatent.training.plan import Training


@given(st.integers(2, 500), st.integers(2, 130))
def test_no_minibatch_has_a_single_cell_and_none_is_lost(n_cells, size):
    parts = [list(range(part.start, part.stop)) for part in slices(n_cells, size)]
    assert [cell for part in parts for cell in part] == list(range(n_cells))
    assert min(map(len, parts)) >= 2
    assert max(map(len, parts)) <= size + 1


def test_an_epoch_visits_every_row_once():
    rows = np.arange(10, 110)
    parts = list(shuffled(rows, 33, np.random.default_rng(0)))
    assert sorted(np.concatenate(parts)) == list(rows)
    assert parts[0].tolist() != list(range(10, 43))


def test_a_pool_of_all_cells_is_a_random_order_like_any_other():
    rows = np.flatnonzero(np.arange(3000) % 5)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    expected = one.permutation(rows)
    parts = list(shuffled(rows, 50, other))
    assert [part.tolist() for part in parts] == np.sort(expected.reshape(-1, 50)).tolist()
    assert one.random() == other.random()


def test_a_pool_is_made_of_whole_runs_in_random_order():
    rows = np.flatnonzero(np.arange(40 * RUN) % 5)
    n_runs = -(-len(rows) // RUN)
    firsts = []
    for seed in range(200):
        order = np.concatenate(list(shuffled(rows, 32, np.random.default_rng(seed), 4 * RUN)))
        assert np.array_equal(np.sort(order), rows)
        runs = np.searchsorted(rows, order[: 4 * RUN]) // RUN
        assert len(set(runs)) == 4
        assert np.array_equal(np.unique(runs, return_counts=True)[1], [RUN] * 4)
        firsts += list(set(runs))
    whole = np.bincount(firsts, minlength=n_runs)[: len(rows) // RUN]
    assert stats.chisquare(whole).pvalue > 0.001


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the same cells in memory and on disk, those of a kind beside each other."""
    random = np.random.default_rng(0)
    rate = random.gamma(1.0, 2.0, (4, 30))[np.repeat(np.arange(4), 400)]
    counts = compact(csr_matrix(random.poisson(rate).astype(np.int32)))
    folder = tmp_path_factory.mktemp("counts")
    write_counts(folder, [counts.block], 30)
    nothing = np.zeros(1600, int)
    labels = np.repeat([0, 1, -1, -1], 400)
    return [
        Cells(held, nothing, labels, ["a"], classes=["x", "y"])
        for held in (counts, StoredCounts(folder))
    ]


def same(one, other) -> bool:
    blocks = zip(one.block, other.block, strict=True)
    return torch.equal(one.rows, other.rows) and all(np.array_equal(*pair) for pair in blocks)


@pytest.mark.parametrize("pool_cells", [RUN, 5 * RUN + 1, 10_000])
def test_minibatches_from_disk_hold_the_counts_of_their_rows(both, pool_cells):
    memory, disk = both
    train = np.flatnonzero(np.arange(1600) % 7)
    drawn = list(draw_epoch(disk, train, 100, np.random.default_rng(0), pool_cells))
    assert sorted(np.concatenate([minibatch.rows for minibatch in drawn])) == list(train)
    assert len(drawn) == len(slices(len(train), 100))
    assert all(same(minibatch, memory.take(minibatch.rows.numpy())) for minibatch in drawn)


def test_an_epoch_goes_on_where_it_stopped(both):
    train = np.arange(0, 1600, 2)
    for cells in both:
        whole = list(draw_epoch(cells, train, 64, np.random.default_rng(5), 512))
        rest = list(draw_epoch(cells, train, 64, np.random.default_rng(5), 512, done=9))
        assert len(rest) == len(whole) - 9
        assert all(same(*pair) for pair in zip(rest, whole[9:], strict=True))


def train_from(cells, seed: int, labelled: str = "minibatch", **changed) -> tuple:
    train, validation = np.flatnonzero(np.arange(1600) % 10), np.arange(0, 1600, 10)
    plan = Training(minibatch=64, n_steps=150, **({"min_epochs": 2} | changed))
    model = build_scvi(cells, train, Scvi(n_latent=3, n_hidden=16), seed)
    curve = fit(model, cells, train, validation, plan, seed, labelled)
    return model, curve, min(row["validation_loss"] for row in curve)


@pytest.mark.parametrize("labelled", ["minibatch", "balanced"])
def test_training_from_disk_is_the_same_to_the_bit_when_the_pool_holds_all(both, labelled):
    models, curves, _ = zip(*(train_from(cells, 0, labelled) for cells in both), strict=True)
    assert curves[0] == curves[1]
    weights = [model.state_dict().values() for model in models]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_training_from_a_small_pool_ends_like_one_from_memory(both, monkeypatch):
    monkeypatch.setattr("sclatent.training.order.RUN", 8)
    memory, disk = both
    pools = {"memory": [], "disk": []}
    for seed in range(4):
        pools["memory"].append(train_from(memory, seed)[2])
        pools["disk"].append(train_from(disk, seed, pool_cells=512)[2])
    assert pools["memory"] != pools["disk"]
    spread = np.std(pools["memory"], ddof=1)
    assert abs(np.mean(pools["memory"]) - np.mean(pools["disk"])) < 2 * spread


def test_a_minibatch_holds_the_counts_twice_and_the_library_size():
    counts = csr_matrix(np.array([[0, 3, 1], [0, 0, 0], [5, 0, 2]], dtype=np.int32))
    cells = Cells(counts, np.array([0, 1, 1]), np.array([-1, 0, 1]), ["a", "b"])
    minibatch = cells.take(np.array([0, 1, 2]))
    dense = np.zeros((3, 3))
    entries = minibatch.entries
    dense[entries.row.numpy(), entries.gene.numpy()] = entries.value.numpy()
    assert np.array_equal(dense, counts.toarray())
    assert np.array_equal(minibatch.counts.numpy(), counts.toarray())
    assert minibatch.library_size.ravel().tolist() == [4, 1, 7]
    assert minibatch.batch.tolist() == [[1, 0], [0, 1], [0, 1]]


@pytest.fixture
def adata():
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(list("aabbab")),
            "cell_type": pd.Categorical(["T", "T", "B", "B", "rare", "Unknown"]),
            "cells_split": ["train", "train", "train", "train", "train", "heldout"],
            "labels_split": ["train", "train", "train", "test", "train", "unknown"],
        },
        index=[f"c{number}" for number in range(6)],
    )
    return anndata.AnnData(csr_matrix(np.ones((6, 3), dtype=np.int32)), obs=obs)


def test_only_training_labels_are_seen(adata, capsys):
    codes, classes = seen_labels(adata, min_cells=1)
    assert classes == ["B", "T", "rare"]
    assert codes.tolist() == [1, 1, 0, -1, 2, -1]


def test_too_few_labels_are_an_error_that_says_what_to_do(adata):
    with pytest.raises(InputError, match="leave out of latents what needs labels"):
        seen_labels(adata, min_cells=2)


def test_rows_follow_the_split(adata):
    rows = split_rows(adata)
    assert rows.train.tolist() == [0, 1, 2, 3, 4]
    assert rows.heldout.tolist() == [5]
    assert gather_cells(adata).batches == ["a", "b"]


@pytest.mark.parametrize("fewest", [1, 2, 3])
def test_classes_are_the_labels_with_enough_training_cells(adata, fewest):
    obs = adata.obs.loc[adata.obs_names.repeat(3)]
    obs["cell_type"] = obs["cell_type"].cat.add_categories(["Unused"])
    obs.loc[obs["cell_type"] == "T", "labels_split"] = "train"
    obs.loc[obs.index[-6:-4], "labels_split"] = "test"  # leaves one cell of the rare type
    counts = csr_matrix(np.ones((18, 3), dtype=np.int32))
    many = anndata.AnnData(counts, obs=obs.set_axis([f"c{number}" for number in range(18)]))
    codes, classes = seen_labels(many, fewest)
    train = (obs["labels_split"] == "train") & (obs["cells_split"] == "train")
    sizes = obs.loc[train, "cell_type"].value_counts()
    assert classes == sorted(sizes[sizes >= fewest].index)
    assert "Unused" not in classes
    assert "Unknown" not in classes
    for number, name in enumerate(classes):
        assert set(obs["cell_type"].to_numpy()[codes == number]) == {name}
    assert (codes[(obs["labels_split"] != "train").to_numpy()] == -1).all()


def test_a_covariate_with_one_category_is_none(adata):
    adata.obs["sex"] = pd.Categorical(list("fmfmfm"))
    adata.obs["site"] = pd.Categorical(["here"] * 6, categories=["here"])
    adata.obs["age"] = np.arange(6.0)
    adata.uns["covariates"] = {"categorical": ["sex", "site"], "continuous": ["age"]}
    covariates = gather_cells(adata).covariates
    assert covariates.categories == {"sex": ["f", "m"]}
    assert covariates.one_hot.tolist() == np.eye(2)[[0, 1] * 3].tolist()
    assert covariates.values[:, 0].tolist() == list(range(6))
    sizes = gather_cells(adata).sizes
    assert (sizes.columns, sizes.continuous) == (4, 1)


def test_a_minibatch_names_the_rows_of_its_cells_and_holds_their_covariates():
    rows = np.array([7, 2, 5])
    covariates = Covariates({}, ["age"], np.zeros((9, 0), np.float32), np.arange(9.0)[:, None])
    counts = csr_matrix(np.ones((9, 2), np.int32))
    cells = Cells(counts, np.zeros(9, int), np.arange(9), ["a"], covariates=covariates)
    minibatch = cells.take(rows)
    assert minibatch.rows.tolist() == minibatch.label.tolist() == rows.tolist()
    assert minibatch.continuous[:, 0].tolist() == rows.tolist()


LABEL = np.array([0] * 200 + [1] * 20 + [2] * 5 + [-1] * 300)


def test_cells_drawn_for_their_labels_are_as_likely_as_each_other():
    drawn = draw_labelled(LABEL, 9000, False, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=len(LABEL))
    assert not counts[LABEL < 0].any()
    assert stats.chisquare(counts[LABEL >= 0]).pvalue > 0.001


def test_balanced_cells_are_drawn_evenly_over_the_labels_and_within_each():
    drawn = draw_labelled(LABEL, 9000, True, np.random.default_rng(0))
    assert (LABEL[drawn] >= 0).all()
    assert stats.chisquare(np.bincount(LABEL[drawn])).pvalue > 0.001
    for label in (0, 1, 2):
        within = np.bincount(drawn[LABEL[drawn] == label], minlength=len(LABEL))
        assert stats.chisquare(within[label == LABEL]).pvalue > 0.001


@pytest.mark.parametrize("labelled", ["drawn", "balanced"])
def test_only_training_cells_are_drawn_for_their_labels(labelled):
    cells = Cells(
        csr_matrix(np.ones((525, 2), np.int32)), np.zeros(525, int), LABEL, ["a"], classes=["x"] * 3
    )
    train = np.r_[100:215, 218:223, 400:500]
    generator = np.random.default_rng(0)
    minibatches = list(gather(cells, train, Training(minibatch=32), labelled, generator))
    drawn = np.concatenate([minibatch.labelled.rows.numpy() for minibatch in minibatches])
    assert set(drawn) <= set(train)
    assert (LABEL[drawn] >= 0).all()
    assert all(len(m.labelled.rows) == len(m.rows) for m in minibatches)
    seen = np.concatenate([minibatch.rows.numpy() for minibatch in minibatches])
    assert sorted(seen) == list(train)


def test_the_random_numbers_of_a_gpu_are_kept_apart_where_there_is_one(monkeypatch):
    cells = Cells(csr_matrix(np.eye(2)), np.zeros(2), np.zeros(2), ["a"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert cells.generators == []
    assert replace(cells, device="cuda").generators == [0, 1]
