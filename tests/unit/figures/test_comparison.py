import numpy as np
import pandas as pd
import pytest

from sclatent.figures.comparison import plot_comparison, reason
from sclatent.figures.style import plt


@pytest.fixture
def tables():
    rows = []
    for latent, kind, score in (
        ("pca", "latent", 0.5),
        ("scvi", "latent", 0.7),
        ("shuffled", "control", 0.1),
        ("labels", "control", 0.6),
    ):
        for seed in (0, 1):
            value = score + 0.01 * seed
            rows.append((latent, kind, seed, "knn_accuracy", value, "", ""))
            rows.append((latent, kind, seed, "ilisi", np.nan, "single batch", ""))
            if kind == "latent":
                rows.append((latent, kind, seed, "wall_seconds", 3.0 + seed, None, ""))
    columns = ["latent", "kind", "seed", "metric", "value", "note", "on_top_of"]
    comparison = pd.DataFrame(rows, columns=columns)
    summary = pd.DataFrame(
        [("pca", "knn_accuracy", np.nan, np.nan), ("scvi", "knn_accuracy", 0.15, 0.25)],
        columns=["latent", "metric", "lower", "upper"],
    )
    return comparison, summary


@pytest.fixture
def figure(tables):
    figure = plot_comparison(*tables)
    yield figure
    plt.close(figure)


def panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_title().strip() == title)


def test_the_interval_is_drawn_from_the_mean_of_pca(figure):
    ends = [line.get_xdata() for line in panel(figure, "kNN label accuracy").lines]
    assert any(np.allclose(line, [0.505 + 0.15, 0.505 + 0.25]) for line in ends if len(line) == 2)


def test_every_seed_is_a_dot(figure):
    dots = [line for line in panel(figure, "kNN label accuracy").lines if line.get_marker() == "o"]
    assert sorted(np.concatenate([line.get_xdata() for line in dots])) == pytest.approx(
        [0.5, 0.51, 0.7, 0.71]
    )


def test_a_control_outside_the_panel_is_named_at_its_edge(figure):
    texts = [text.get_text() for text in panel(figure, "kNN label accuracy").texts]
    assert any(text.startswith("◂ shuffled cells 0.1") for text in texts)
    assert not any("true labels" in text for text in texts)


def test_a_metric_without_values_says_why(figure):
    texts = [text.get_text() for text in panel(figure, "iLISI").texts]
    assert texts.count("n/a: single batch") == 2


def test_the_direction_is_said_on_every_axis(figure):
    labels = [axis.get_xlabel() for axis in figure.axes if axis.get_title()]
    assert all("higher is better" in text or "lower is better" in text for text in labels)


def test_latents_keep_their_order(figure):
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["PCA", "scVI"]


def test_panels_are_never_so_narrow_that_noise_looks_large(tables):
    comparison, summary = tables
    comparison["value"] = comparison["value"].where(comparison["metric"] != "knn_accuracy", 0.5)
    figure = plot_comparison(comparison, summary.assign(lower=0.0, upper=0.0))
    lower, upper = panel(figure, "kNN label accuracy").get_xlim()
    assert upper - lower >= 0.0999
    plt.close(figure)


def test_a_missing_note_gives_a_plain_n_a():
    assert reason(pd.DataFrame({"note": [np.nan, ""]})) == "n/a"
