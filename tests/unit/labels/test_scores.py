"""Scores of predicted labels against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss

from sclatent import files
from sclatent.labels import scores
from sclatent.labels.tables import Predictions, labels_table, write_labels

CLASSES = np.array(["B", "NK", "T"])


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 900)
    drawn = (rng.random(900)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    cells = np.array([f"c{i}" for i in range(900)])
    return CLASSES[np.minimum(drawn, 2)], Predictions(cells, CLASSES, probabilities)


def test_scores_are_those_of_sklearn(case):
    truth, predictions = case
    labels, shares = predictions.labels, predictions.probabilities
    one_hot = (truth[:, None] == CLASSES).astype(float)
    assert scores.accuracy(*case) == pytest.approx(accuracy_score(truth, labels))
    assert scores.macro_f1(*case) == pytest.approx(f1_score(truth, labels, average="macro"))
    assert scores.nll(*case) == pytest.approx(log_loss(truth, shares, labels=CLASSES), abs=1e-4)
    assert scores.brier(*case) == pytest.approx(((shares - one_hot) ** 2).sum(axis=1).mean())
    assert scores.brier(*case) == pytest.approx(
        brier_score_loss(truth, shares, labels=CLASSES, scale_by_half=False)
    )


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharpened_ones_are_not(case):
    truth, predictions = case
    sharp = predictions.probabilities**4
    sharp = Predictions(predictions.cells, CLASSES, sharp / sharp.sum(axis=1, keepdims=True))
    assert scores.ece(truth, predictions) < 0.07
    assert scores.ece(truth, sharp) > 0.15


def test_ece_by_hand():
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    predictions = Predictions(np.arange(4), np.array(["a", "b"]), shares)
    truth = np.array(["a", "b", "a", "a"])
    assert scores.ece(truth, predictions, n_bins=2) == pytest.approx((0.4 + 0.4) / 2)


def test_the_order_of_cells_of_equal_probability_does_not_move_the_ece():
    rng = np.random.default_rng(0)
    top = rng.integers(8, 16, 400) / 15
    shares = np.stack([top, 1 - top], axis=1)
    truth = np.where(rng.random(400) < 0.6, "a", "b")
    order = rng.permutation(400)
    one = scores.ece(truth, Predictions(np.arange(400), np.array(["a", "b"]), shares))
    two = scores.ece(truth[order], Predictions(order, np.array(["a", "b"]), shares[order]))
    assert one == pytest.approx(two)


def test_a_type_never_learnt_is_wrong_in_every_score():
    shares = np.array([[0.5, 0.3, 0.2]] * 4)
    predictions = Predictions(np.arange(4), CLASSES, shares)
    truth = np.array(["stem"] * 4)
    assert scores.accuracy(truth, predictions) == 0
    assert scores.macro_f1(truth, predictions) == 0
    assert scores.ece(truth, predictions) == pytest.approx(0.5)
    assert scores.brier(truth, predictions) == pytest.approx(1 + 0.25 + 0.09 + 0.04)
    assert scores.nll(truth, predictions) == pytest.approx(-np.log(1e-6))


def test_classes_in_another_order_score_the_same(case):
    truth, predictions = case
    order = [2, 0, 1]
    mixed = Predictions(predictions.cells, CLASSES[order], predictions.probabilities[:, order])
    for score in scores.SCORES.values():
        assert score(truth, mixed) == pytest.approx(score(truth, predictions))


def test_the_majority_says_the_shares_of_the_training_labels():
    found = scores.majority(np.array(["T", "B", "T", "T"]), ["x", "y"])
    assert found.labels.tolist() == ["T", "T"]
    assert found.probabilities.tolist() == [[0.25, 0.75]] * 2


def test_only_test_labels_count_and_the_baseline_comes_with_every_seed(case, tmp_path):
    truth, predictions = case
    cells = predictions.cells
    split = np.random.default_rng(1).choice(["train", "test", "calibration"], 900)
    labels, splits = [], []
    for seed in (3, 4):
        labels.append(tmp_path / f"labels{seed}.tsv.gz")
        write_labels(labels[-1], labels_table(cells, CLASSES, predictions.probabilities))
        splits.append(tmp_path / f"split{seed}.tsv.gz")
        files.write_table(splits[-1], pd.DataFrame({"cell": cells[::-1], "labels": split[::-1]}))
    types = pd.Series(truth, index=cells, dtype="category")
    table = scores.score_all(labels, splits, ["knn"], [3, 4], types)
    assert len(table) == 2 * 2 * 5
    assert (table["n_cells"] == (split == "test").sum()).all()
    test = split == "test"
    found = table.set_index(["classifier", "seed", "metric"])["value"]
    assert found[("knn", 4, "accuracy")] == pytest.approx(
        (predictions.labels == truth)[test].mean()
    )
    names, sizes = np.unique(truth[split == "train"], return_counts=True)
    assert found[("majority", 3, "accuracy")] == pytest.approx(
        (truth[test] == names[sizes.argmax()]).mean()
    )


def test_without_test_labels_scores_are_not_defined(case):
    truth, predictions = case
    table = scores.score_labels("knn", 0, predictions, truth, np.full(900, "train"))
    assert table["value"].isna().all()
    assert (table["n_cells"] == 0).all()
