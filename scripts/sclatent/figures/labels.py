"""Label transfer on test labels: scores, reliability of the probabilities, confusions."""

import numpy as np
import pandas as pd

from sclatent import files
from sclatent.data.store import positions
from sclatent.figures import style, words
from sclatent.figures.style import plt
from sclatent.labels.scores import N_BINS

SCORES = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
COLOURS = {"logistic": "#D55E00", "knn": "#56B4E9", "scanvi": "#009E73", "majority": "#888888"}
OTHERS = ("#CC79A7", "#0072B2", "#E69F00", "#000000")
MARKERS = {"logistic": "s", "knn": "^", "scanvi": "o"}
WRITTEN_UP_TO = 16  # classes; above it the confusion matrix has colours only


def read_test_labels(labels, splits, classifiers, seeds, obs: pd.DataFrame) -> pd.DataFrame:
    """Read what each classifier said about the test labels of each seed.

    Parameters
    ----------
    labels, splits : list of paths
        Labels seed by seed for each classifier; splits by seed.
    obs
        Column cell_type, indexed by cell.

    Returns
    -------
    DataFrame
        One row per test cell: classifier, seed, truth, label, probability.
    """
    hidden = {}
    for seed, path in zip(seeds, splits, strict=True):
        table = files.read_table(path)
        hidden[seed] = table.loc[table["labels"] == "test", "cell"].to_numpy()
    keys = [(classifier, seed) for classifier in classifiers for seed in seeds]
    tables = []
    for (classifier, seed), path in zip(keys, labels, strict=True):
        table = files.read_table(path, usecols=["cell", "label", "probability"])
        table = table.iloc[positions(table["cell"], hidden[seed], "the split", path, "cell")]
        truth = obs["cell_type"].astype(str).loc[hidden[seed]].to_numpy()
        tables.append(table.assign(classifier=classifier, seed=seed, truth=truth))
    return pd.concat(tables, ignore_index=True)


def plot_labels(tested: pd.DataFrame, scores: pd.DataFrame):
    """Draw scores and reliability of all classifiers, and the confusions of the most accurate.

    Parameters
    ----------
    tested
        As returned by `read_test_labels`.
    scores
        Columns classifier, seed, metric, value.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if tested.empty:
        figure = plt.figure(figsize=(11, 1.5))
        figure.text(0.5, 0.5, "n/a: no test labels", ha="center", style="italic")
        return figure
    classifiers = words.ordered(tested["classifier"], words.NAMES)
    means = scores.groupby(["classifier", "metric"])["value"].mean()
    best = max(classifiers, key=lambda classifier: means[classifier, "accuracy"])
    classes = sorted(set(tested["truth"]) | set(tested["label"]), key=style.natural)
    side = float(np.clip(2.2 + 0.34 * len(classes), 3.6, 9.0))
    figure = plt.figure(figsize=(11, 3.4 + side))
    above, below = figure.subfigures(2, 1, height_ratios=[3.4, side])
    left, right = above.subplots(1, 2, width_ratios=[1.1, 1])
    draw_scores(left, scores, classifiers)
    draw_reliability(right, tested, classifiers, means)
    draw_confusion(below, tested[tested["classifier"] == best], best, classes)
    return figure


def colours(classifiers) -> dict[str, str]:
    """Return a colour per classifier: a fixed one for those the project names."""
    others = [classifier for classifier in classifiers if classifier not in COLOURS]
    return COLOURS | style.assign(others, OTHERS)


def draw_scores(axis, scores: pd.DataFrame, classifiers) -> None:
    """Draw accuracy and macro-F1: a dot per seed, a bar at the mean."""
    rows = [*classifiers, *(["majority"] if "majority" in set(scores["classifier"]) else [])]
    for shift, metric, filled in ((-0.16, "accuracy", True), (0.16, "macro_f1", False)):
        for place, classifier in enumerate(rows):
            chosen = (scores["classifier"] == classifier) & (scores["metric"] == metric)
            values = scores.loc[chosen, "value"].dropna().to_numpy()
            if not len(values):
                continue
            colour, height = colours(classifiers)[classifier], place + shift
            fill = colour if filled else "white"
            dots = {"color": colour, "markerfacecolor": fill, "markersize": 5.5}
            axis.plot(values, np.full(len(values), height), "o", **dots)
            axis.plot([values.mean()] * 2, [height - 0.13, height + 0.13], "k-", linewidth=1.6)
            axis.text(1.02, height, f"{values.mean():.3f}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [words.name(row) for row in rows])
    axis.set(xlim=(0, 1), xlabel="score on test labels, higher is better")
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.text(1.02, -0.6, "mean", fontsize=8, va="bottom")
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.6)
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color="#555555", markerfacecolor=fill)
        for fill in ("#555555", "white")
    ]
    axis.legend(handles, SCORES.values(), loc="upper center", bbox_to_anchor=(0.45, 1.15), ncols=2)


def draw_reliability(axis, tested: pd.DataFrame, classifiers, means) -> None:
    """Draw how often a label is right against its probability, in bins of equal mass."""
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.9, linestyle="--")
    for classifier in classifiers:
        rows = tested[tested["classifier"] == classifier]
        right = (rows["label"] == rows["truth"]).to_numpy()
        error = means.get((classifier, "ece"), np.nan)
        axis.plot(
            *reliability(rows["probability"].to_numpy(), right),
            color=colours(classifiers)[classifier],
            marker=MARKERS.get(classifier, "D"),
            markersize=4,
            linewidth=1,
            label=f"{words.name(classifier)}\nECE {error:.3f}",
        )
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), box_aspect=1)
    axis.set(xlabel="probability of the predicted label", ylabel="share that is right")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelspacing=1)
    axis.set_title(f"reliability in {N_BINS} bins of equal mass")


def reliability(probability: np.ndarray, right: np.ndarray, n_bins: int = N_BINS):
    """Return mean probability and share of right labels in bins of equal mass.

    Parameters
    ----------
    probability, right
        Probability (B,) of each predicted label, and whether it is right.

    Returns
    -------
    tuple of ndarray
        Both of shape (min(n_bins, B),), in the order of the probability.
    """
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, n_bins) if len(part)]
    return (
        np.array([probability[part].mean() for part in bins]),
        np.array([right[part].mean() for part in bins]),
    )


def confusion(truth, label, classes) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the share of each class's cells that got each label, and the cells per class.

    Rows are the classes that occur in the truth, columns all `classes`; a row sums to 1.
    """
    counts = pd.crosstab(np.asarray(truth), np.asarray(label))
    rows = [name for name in classes if name in counts.index]
    counts = counts.reindex(index=rows, columns=list(classes), fill_value=0)
    sizes = counts.sum(axis=1).to_numpy()
    return counts.div(sizes, axis=0), sizes


def draw_confusion(figure, tested: pd.DataFrame, classifier: str, classes) -> None:
    """Draw the confusion matrix of one classifier over all seeds."""
    shares, sizes = confusion(tested["truth"], tested["label"], classes)
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 8 if len(classes) <= WRITTEN_UP_TO else 6
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    rows = [f"{name}  (n = {n:,})" for name, n in zip(shares.index, sizes, strict=True)]
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0, labelsize=size)
    axis.spines[:].set_visible(False)
    if len(classes) <= WRITTEN_UP_TO:
        for (row, column), share in np.ndenumerate(shares.to_numpy()):
            if share >= 0.005:
                colour = "white" if share > 0.6 else "black"
                text = f"{share:.2f}".removeprefix("0") if share < 0.995 else "1"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    n_seeds = tested["seed"].nunique()
    axis.set_title(
        f"Confusions of {words.name(classifier)}, the most accurate "
        f"(test labels of {n_seeds} seed{'s' if n_seeds > 1 else ''})"
    )
    axis.set(xlabel="predicted label", ylabel="observed label")
    figure.colorbar(picture, ax=axis, fraction=0.03, pad=0.02, label="share of the row")
