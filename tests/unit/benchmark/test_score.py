"""Scoring a latent: which cells count, what is refused, what is noted; and the controls."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclatent.benchmark.controls import embed_labels, score_controls, shuffle_cells
from sclatent.benchmark.score import METRICS, BenchmarkSettings, prepare, score_latent
from sclatent.errors import InputError

SETTINGS = BenchmarkSettings(n_inits=3)


@pytest.fixture(scope="module")
def cells(planted):
    _, labels, batches = planted
    rng = np.random.default_rng(0)
    names = np.array(["B", "T", "NK", "stem"])[labels]
    names[:20] = "Unknown"
    names[20:24] = "rare"
    split = rng.choice(["train", "calibration", "test"], 600, p=[0.6, 0.1, 0.3])
    split[names == "Unknown"] = "unknown"
    profiles = rng.gamma(0.5, 2.0, (4, 50))
    counts = sparse.csr_matrix(rng.poisson(profiles[labels] + 0.1).astype(np.int32))
    obs = {"batch": [f"batch{b}" for b in batches], "cell_type": names, "labels_split": split}
    obs = pd.DataFrame(obs, index=[f"c{i}" for i in range(600)]).astype("category")
    obs["total_counts"] = np.asarray(counts.sum(axis=1)).ravel()
    return anndata.AnnData(counts, obs=obs)


@pytest.fixture(scope="module")
def judge(cells):
    return prepare(cells, SETTINGS, 0)


@pytest.fixture(scope="module")
def scores(planted, judge):
    return score_latent(planted[0], judge, "scvi", 7)


def test_every_metric_has_a_row_and_says_what_it_was_measured_on(scores, cells):
    obs = cells.obs
    test = (obs["labels_split"] == "test") & ~obs["cell_type"].isin(["rare", "Unknown"])
    labelled = (~obs["cell_type"].isin(["rare", "Unknown"])).sum()
    table = scores.set_index("metric")
    assert scores["metric"].tolist() == list(METRICS)
    assert set(scores["latent"]) == {"scvi"}
    assert set(scores["seed"]) == {7}
    assert table.loc["nmi", "n_cells"] == test.sum()
    assert table.loc["nmi", "n_rest"] == labelled - test.sum()
    stem = (test & (obs["cell_type"] == "stem")).sum()
    assert table.loc["knn_accuracy", "n_cells"] == test.sum() - stem
    assert table.loc["ilisi", "n_cells"] == 600
    assert table["scope"].tolist() == ["test labels"] * 5 + ["all cells"] * 2
    assert table["value"].between(-0.5, 1).all()
    assert (table["note"] == "").all()


def test_labels_that_models_could_see_do_not_move_the_label_metrics(planted, judge, scores):
    latent = planted[0].copy()
    judged_rows = latent[judge.judged]
    latent[~judge.judged] += np.random.default_rng(0).normal(size=latent[~judge.judged].shape) * 9
    latent[judge.judged] = judged_rows
    again = score_latent(latent, judge, "scvi", 7).set_index("metric")["value"]
    for metric in ("nmi", "ari", "clisi", "graph_connectivity"):
        assert again[metric] == scores.set_index("metric")["value"][metric]


def test_the_same_latent_twice_scores_the_same(planted, judge, scores):
    pd.testing.assert_frame_equal(score_latent(planted[0], judge, "scvi", 7), scores)


@pytest.mark.parametrize("n_columns", [1, 2])
def test_a_two_dimensional_layout_is_refused_with_the_reason(planted, judge, n_columns):
    with pytest.raises(InputError, match="layouts tear neighbourhoods apart and invent gaps"):
        score_latent(planted[0][:, :n_columns], judge, "umap", 0)


def test_a_latent_that_is_not_finite_is_refused(planted, judge):
    latent = planted[0].copy()
    latent[3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        score_latent(latent, judge, "scvi", 0)


def test_a_single_batch_is_noted(planted, cells):
    single = cells.copy()
    single.obs["batch"] = "one"
    table = score_latent(planted[0], prepare(single, SETTINGS, 0), "pca", 0).set_index("metric")
    assert np.isnan(table.loc["ilisi", "value"])
    assert table.loc["ilisi", "note"] == "single batch"
    assert table.loc["knn_accuracy", "note"] == "within one batch"
    assert table.loc["knn_accuracy", "value"] > 0.9
    assert table.loc["preservation", "value"] > 0


def test_without_labels_only_the_label_metrics_are_undefined(planted, cells):
    bare = cells.copy()
    bare.obs["cell_type"] = "Unknown"
    bare.obs["labels_split"] = "unknown"
    table = score_latent(planted[0], prepare(bare, SETTINGS, 0), "pca", 0).set_index("metric")
    assert table["value"].isna().tolist() == [True] * 5 + [False] * 2
    assert table["note"].tolist() == ["no test labels"] * 5 + [""] * 2
    assert (table["n_cells"].iloc[:5] == 0).all()


def test_a_large_dataset_is_scored_on_a_sample_that_is_the_same_for_all_latents(
    planted, cells, capsys
):
    few = replace(SETTINGS, max_cells=400)
    one, two = prepare(cells, few, 5), prepare(cells, few, 5)
    np.testing.assert_array_equal(one.rows, two.rows)
    assert (prepare(cells, few, 6).rows != one.rows).any()
    table = score_latent(planted[0], one, "pca", 5).set_index("metric")
    assert table.loc["ilisi", "n_cells"] == 400
    assert "400 of 600 cells" in capsys.readouterr().out
    subset = prepare(cells[one.rows].copy(), SETTINGS, 5)
    expected = score_latent(planted[0][one.rows], subset, "pca", 5).set_index("metric")
    pd.testing.assert_frame_equal(table, expected)


def test_the_controls_bracket_the_label_metrics(planted, cells, judge, scores):
    controls = score_controls(planted[0], cells.obs["cell_type"], judge, seed=0)
    table = controls.pivot_table(index="metric", columns="latent", values="value")
    latent = scores.set_index("metric")["value"]
    for metric in ("knn_accuracy", "nmi", "clisi", "graph_connectivity"):
        assert table.loc[metric, "shuffled"] < latent[metric] <= table.loc[metric, "labels"] + 0.05
    assert table.loc["nmi", "shuffled"] < 0.05
    assert table.loc["knn_accuracy", "labels"] > 0.95
    assert table.loc["preservation", "shuffled"] < latent["preservation"]


def test_shuffling_keeps_the_values_and_loses_the_cells(planted):
    shuffled = shuffle_cells(planted[0], 0)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(planted[0], axis=0))
    assert (shuffled != planted[0]).any(axis=1).mean() > 0.9


def test_the_label_embedding_has_the_width_of_the_latent_and_room_for_all_labels():
    names = ["a", "b", "Unknown", "c", "a"]
    assert embed_labels(names, 30, 0).shape == (5, 30)
    assert embed_labels(names, 2, 0).shape == (5, 3)
    assert embed_labels(names, 3, 0).argmax(axis=1)[[0, 1, 3, 4]].tolist() == [0, 1, 2, 0]
    assert embed_labels(["Unknown"] * 4, 3, 0).shape == (4, 3)
