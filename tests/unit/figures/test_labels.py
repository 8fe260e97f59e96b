import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.figures.labels import confusion, plot_labels, read_test_labels, reliability
from sclatent.figures.style import plt


def make_tested(n=200, types=("B", "T", "NK")):
    rng = np.random.default_rng(0)
    parts = []
    for classifier, right in (("logistic", 0.7), ("scanvi", 0.95)):
        truth = rng.choice(types, n)
        label = np.where(rng.random(n) < right, truth, rng.choice(types, n))
        columns = {"truth": truth, "label": label, "probability": rng.uniform(0.3, 1, n)}
        parts.append(pd.DataFrame(columns).assign(classifier=classifier, seed=0))
    return pd.concat(parts, ignore_index=True)


def make_scores():
    values = {"logistic": 0.7, "scanvi": 0.95, "majority": 0.3}
    return pd.DataFrame(
        [(name, 0, m, v) for name, v in values.items() for m in ("accuracy", "macro_f1", "ece")],
        columns=["classifier", "seed", "metric", "value"],
    )


def test_the_confusions_shown_are_those_of_the_most_accurate_classifier():
    figure = plot_labels(make_tested(), make_scores())
    assert any("Confusions of scANVI" in axis.get_title() for axis in figure.axes)
    plt.close(figure)


def test_the_reliability_curve_has_a_line_per_classifier_with_its_ece():
    figure = plot_labels(make_tested(), make_scores())
    legends = [axis.get_legend() for axis in figure.axes if "reliability" in axis.get_title()]
    assert [text.get_text() for text in legends[0].get_texts()] == [
        "scANVI\nECE 0.950",
        "logistic regression\nECE 0.700",
    ]
    plt.close(figure)


def test_bins_of_the_reliability_curve_hold_equally_many_cells():
    probability = np.linspace(0, 1, 150)
    mean, share = reliability(probability, probability > 0.5)
    assert len(mean) == 15
    np.testing.assert_allclose(mean, probability.reshape(15, 10).mean(axis=1))
    assert set(share[:7]) == {0.0}


def test_calibrated_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.2, 1, 60_000)
    mean, share = reliability(probability, rng.random(60_000) < probability)
    np.testing.assert_allclose(share, mean, atol=0.03)


def test_fewer_cells_than_bins_give_fewer_points():
    mean, share = reliability(np.array([0.4, 0.9]), np.array([False, True]))
    np.testing.assert_array_equal(mean, [0.4, 0.9])
    np.testing.assert_array_equal(share, [0, 1])


def test_rows_of_the_confusion_matrix_sum_to_one_and_absent_types_have_no_row():
    shares, sizes = confusion(["B", "B", "T"], ["B", "NK", "T"], ["B", "NK", "T"])
    assert list(shares.index) == ["B", "T"]
    assert list(shares.columns) == ["B", "NK", "T"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(sizes, [2, 1])


@pytest.mark.parametrize("n_types", [2, 40])
def test_few_and_many_types_can_be_drawn(n_types):
    tested = make_tested(n=400, types=[f"a long type name {i}" for i in range(n_types)])
    plt.close(plot_labels(tested, make_scores()))


def test_without_test_labels_the_figure_says_so():
    figure = plot_labels(make_tested().head(0), make_scores().assign(value=np.nan))
    assert [text.get_text() for text in figure.texts] == ["n/a: no test labels"]
    plt.close(figure)


def test_only_test_labels_are_read_and_joined_by_name(tmp_path):
    split = pd.DataFrame({"cell": ["a", "b", "c"], "cells": "train", "labels": "test"})
    split.loc[1, "labels"] = "train"
    files.write_table(tmp_path / "split.tsv", split)
    labels = pd.DataFrame({"cell": ["c", "b", "a"], "label": ["T", "T", "B"], "probability": 0.5})
    files.write_table(tmp_path / "labels.tsv", labels)
    obs = pd.DataFrame({"cell_type": ["B", "B", "NK"]}, index=["a", "b", "c"])
    args = ([tmp_path / "labels.tsv"], [tmp_path / "split.tsv"], ["knn"], [0], obs)
    found = read_test_labels(*args)
    assert found[["truth", "label"]].to_numpy().tolist() == [["B", "B"], ["NK", "T"]]
