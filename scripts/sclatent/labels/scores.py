"""How good predicted labels and their probabilities are, on labels hidden from the classifier.

Higher is better for accuracy and macro F1; lower for the calibration error (ECE), the Brier score
and the negative log-likelihood (NLL). A label that the classifier never learnt stays in the count:
its probability is 0 everywhere, so it is wrong in every score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclatent.labels.tables import Predictions

if TYPE_CHECKING:
    import pandas as pd

N_BINS = 15
"""Bins of the calibration error."""
FLOOR = 1e-6
"""Least probability that the negative log-likelihood counts with."""
MAJORITY = "majority"
"""The baseline that says for every cell how often each label occurs in training."""


def accuracy(truth: np.ndarray, predictions: Predictions) -> float:
    """Return the share of right labels, 0 to 1.

    Parameters
    ----------
    truth : (B,) array of names
    predictions : Predictions of the same B cells
    """
    return float((predictions.labels == truth).mean())


def macro_f1(truth: np.ndarray, predictions: Predictions) -> float:
    """Return the mean F1 of the labels that occur in the truth, each of the same weight, 0 to 1."""
    from sklearn.metrics import f1_score

    names = np.unique(truth)
    return float(
        f1_score(truth, predictions.labels, labels=names, average="macro", zero_division=0)
    )


def ece(truth: np.ndarray, predictions: Predictions, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error of the predicted label's probability, 0 to 1.

    Cells are sorted by probability and cut into bins of equal size; the error is the mean over
    cells of their bin's |mean probability - share right|. Cells of the same probability share
    their hits evenly, so their order does not matter.
    """
    confidence = predictions.probabilities.max(axis=1)
    right = (predictions.labels == truth).astype(np.float64)
    _, inverse, sizes = np.unique(confidence, return_inverse=True, return_counts=True)
    right = (np.bincount(inverse, weights=right) / sizes)[inverse]
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - right)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, n_bins)) / len(gaps))


def brier(truth: np.ndarray, predictions: Predictions) -> float:
    """Return the mean squared distance of the probabilities from the truth's corner, 0 to 2.

    A label that was never learnt adds a class of probability 0: 1 plus the sum of squares.
    """
    squares = (predictions.probabilities**2).sum(axis=1)
    return float((squares - 2 * true_probability(truth, predictions) + 1).mean())


def nll(truth: np.ndarray, predictions: Predictions) -> float:
    """Return the mean of -log(probability of the truth), in nats; probabilities of at least 1e-6.

    A label that was never learnt costs -log(1e-6) = 13.8.
    """
    return float(-np.log(np.maximum(true_probability(truth, predictions), FLOOR)).mean())


def true_probability(truth: np.ndarray, predictions: Predictions) -> np.ndarray:
    """Return the probability (B,) given to each cell's true label; 0 where it was not learnt."""
    order = np.argsort(predictions.classes)
    classes = predictions.classes[order]
    place = np.minimum(np.searchsorted(classes, truth), len(classes) - 1)
    probability = predictions.probabilities[np.arange(len(truth)), order[place]]
    return np.where(classes[place] == truth, probability, 0.0)


SCORES = {"accuracy": accuracy, "macro_f1": macro_f1, "ece": ece, "brier": brier, "nll": nll}


def majority(labels: np.ndarray, cells) -> Predictions:
    """Return the baseline for cells (B,): the shares of the training labels, for every cell."""
    classes, sizes = np.unique(np.asarray(labels, dtype=str), return_counts=True)
    shares = np.tile(sizes / sizes.sum(), (len(cells), 1))
    return Predictions(np.asarray(cells, dtype=str), classes, shares)


def score_labels(
    classifier: str, seed: int, predictions: Predictions, labels: np.ndarray, split: np.ndarray
) -> pd.DataFrame:
    """Score a classifier on the test labels.

    Parameters
    ----------
    predictions : Predictions of B cells
    labels : (B,) array of names
        The true labels.
    split : (B,) array
        train, calibration, test or unknown.

    Returns
    -------
    DataFrame
        `classifier`, `seed`, `metric`, `value`, `n_cells` (test labels); nan without any.
    """
    import pandas as pd

    test = split == "test"
    truth = labels[test]
    judged = Predictions(
        predictions.cells[test], predictions.classes, predictions.probabilities[test]
    )
    values = {
        name: score(truth, judged) if len(truth) else np.nan for name, score in SCORES.items()
    }
    unseen = ~np.isin(truth, predictions.classes)
    if unseen.any():
        names = ", ".join(np.unique(truth[unseen]))
        print(f"{classifier} seed {seed}: {unseen.sum():,} test cells of types not learnt: {names}")
    rows = {"classifier": classifier, "seed": seed, "metric": list(values)}
    return pd.DataFrame(rows | {"value": list(values.values()), "n_cells": int(test.sum())})


def score_all(label_files, split_files, classifiers, seeds, cell_types: pd.Series) -> pd.DataFrame:
    """Score every classifier and the majority baseline on every seed.

    Parameters
    ----------
    label_files : list of paths
        All seeds of the first classifier, then of the second, and so on.
    split_files : list of paths
        One per seed.
    cell_types : Series
        True labels, indexed by cell.

    Returns
    -------
    DataFrame
        The rows of `score_labels`, the baseline last.
    """
    from itertools import product

    import pandas as pd

    from sclatent import files
    from sclatent.labels.tables import read_labels

    cells, labels = cell_types.index, cell_types.to_numpy(dtype=str)
    splits = {}
    for seed, path in zip(seeds, split_files, strict=True):
        table = files.read_table(path).set_index("cell")["labels"]
        splits[seed] = table.reindex(cells).to_numpy(dtype=str)
    tables = [
        score_labels(name, seed, read_labels(path, cells), labels, splits[seed])
        for (name, seed), path in zip(product(classifiers, seeds), label_files, strict=True)
    ]
    for seed, split in splits.items():
        predictions = majority(labels[split == "train"], cells)
        tables.append(score_labels(MAJORITY, seed, predictions, labels, split))
    scores = pd.concat(tables, ignore_index=True)
    accuracies = scores[scores["metric"] == "accuracy"]
    means = accuracies.groupby("classifier", sort=False)["value"].mean().dropna()
    for name, value in means.items():
        print(f"{name}: mean accuracy {value:.3f} over {len(splits)} seed(s)")
    return scores
