"""Label transfer from a latent: logistic regression and nearest neighbours, with probabilities.

Both learn only from cells with ``labels_split == "train"`` and predict every cell. They take the
latent's axes as they are: scaling each to unit variance would make noise axes as loud as the first
component.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from sclatent.data.store import UNKNOWN

MAX_LEARNT = 50_000
"""Labelled cells that are learnt from, about: neighbours of a million cells among as many others
would take hours."""
MIN_LEARNT = 100
"""Cells of a type that stay among them, where there are so many."""


@dataclass(frozen=True)
class TransferSettings:
    """The config's section `transfer`."""

    classifiers: tuple[str, ...] = ("logistic", "knn")
    n_neighbors: int = 15


def transfer_labels(
    latent: np.ndarray,
    labels: np.ndarray,
    learnt: np.ndarray,
    classifier: str,
    settings: TransferSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the label of every cell.

    Parameters
    ----------
    latent : (B, L) array
    labels : (B,) array of names
    learnt : (B,) array of bool
        The cells whose labels may be seen; of more than `MAX_LEARNT` a random part is.
    classifier : str
        ``logistic`` or ``knn``.

    Returns
    -------
    classes : (C,) array of names, sorted
        The labels among the cells learnt from; `UNKNOWN` alone where there is none.
    probabilities : (B, C) array
        Rows sum to 1. For neighbours, the shares of their votes; a cell learnt from is among its
        own neighbours.
    """
    labels, learnt = np.asarray(labels, dtype=str), np.asarray(learnt, dtype=bool)
    classes, sizes = np.unique(labels[learnt], return_counts=True)
    if not len(classes):
        n_cells = len(latent)
        print(f"WARNING none of {n_cells:,} cells has a label to learn from: all stay '{UNKNOWN}'")
        return np.array([UNKNOWN]), np.ones((n_cells, 1))
    print(f"{classifier}: {sizes.sum():,} training labels of {len(classes)} types")
    learnt = draw_learnt(labels, learnt)
    if len(classes) == 1:
        print(f"WARNING one type only: every cell becomes '{classes[0]}'")
        return classes, np.ones((len(latent), 1))
    fit = {"logistic": fit_logistic, "knn": fit_neighbors}[classifier]
    latent = np.asarray(latent, dtype=np.float64)
    model = fit(latent[learnt], labels[learnt], settings)
    return classes, model.predict_proba(latent)


def draw_learnt(labels: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Return which cells (B,) to learn from: all labelled ones, or a random part of very many.

    Every type keeps `MIN_LEARNT` cells, or all it has.
    """
    import pandas as pd

    rows = np.random.default_rng([0, 5]).permutation(np.flatnonzero(learnt))
    if len(rows) <= MAX_LEARNT:
        return learnt
    rank = pd.Series(labels[rows]).groupby(labels[rows]).cumcount().to_numpy()
    rows = rows[(np.arange(len(rows)) < MAX_LEARNT) | (rank < MIN_LEARNT)]
    print(f"{len(rows):,} of them are learnt from, drawn at random")
    return np.isin(np.arange(len(labels)), rows)


def fit_logistic(latent: np.ndarray, labels: np.ndarray, settings: TransferSettings):
    """Fit multinomial logistic regression, scikit-learn's default penalty (C = 1)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(latent, labels)
    if model.n_iter_.max() >= model.max_iter:
        print(f"WARNING logistic regression stopped after {model.max_iter} rounds, not converged")
    return model


def fit_neighbors(latent: np.ndarray, labels: np.ndarray, settings: TransferSettings):
    """Remember the cells learnt from; the nearest `n_neighbors` of them vote."""
    from sklearn.neighbors import KNeighborsClassifier

    k = min(settings.n_neighbors, len(labels))
    return KNeighborsClassifier(k, algorithm="brute", n_jobs=1).fit(latent, labels)
