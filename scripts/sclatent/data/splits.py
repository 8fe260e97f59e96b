"""Decide once which cells train, validate and test, and whose labels may be seen.

Cells and labels are split apart: a latent is fitted on training cells with no labels, and a
classifier on training labels. What is hidden stays hidden from every later step, the choice of
genes included.

Each seed draws anew. The draw depends on the names of the cells, not on their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError, nearest, problem

if TYPE_CHECKING:
    import pandas as pd

CELLS = ("train", "validation", "heldout")
LABELS = ("train", "calibration", "test", "unknown")
FEWEST = 3  # a label with fewer visible cells is only learnt, never judged


@dataclass(frozen=True)
class Shares:
    """Shares of the cells and of the labels; the schema describes each."""

    heldout: float = 0.1
    validation: float = 0.1
    label_test: float = 0.2
    label_calibration: float = 0.1


def split_cells(obs, shares: Shares, seed: int, hidden_batches=()) -> pd.DataFrame:
    """Split cells and labels.

    Parameters
    ----------
    obs
        Data frame indexed by cell with `batch` and `cell_type`.
    shares
        How much of what.
    seed
        Of this repeat.
    hidden_batches
        Batches whose labels are all hidden. Their cells still train the latents.

    Returns
    -------
    pandas.DataFrame
        `cell`, in the order of `obs`; `cells`: train, validation or heldout, in equal shares of
        each cell type of each batch; `labels`: train, calibration, test, or unknown where the
        cell has no label. Labels of held-out cells and of hidden batches are test.

    Raises
    ------
    InputError
        When a hidden batch does not exist or no label is left to learn from.
    """
    import pandas as pd

    cell = np.asarray(obs.index, dtype=str)
    batch = obs["batch"].astype(str).to_numpy()
    label = obs["cell_type"].astype(str).to_numpy()
    hidden = hidden_cells(batch, label, hidden_batches)
    order = np.argsort(cell)
    cells, labels = np.empty((2, len(cell)), dtype=object)
    cells[order] = draw_cells(batch[order], label[order], shares, seed)
    labels[order] = draw_labels(cells[order], label[order], hidden[order], shares, seed)
    for name, drawn, kinds in (("cells", cells, CELLS), ("labels", labels, LABELS)):
        counts = ", ".join(f"{(drawn == kind).sum():,} {kind}" for kind in kinds)
        print(f"split of the {name}: {counts}")
    return pd.DataFrame({"cell": cell, "cells": cells, "labels": labels})


def hidden_cells(batch: np.ndarray, label: np.ndarray, hidden_batches) -> np.ndarray:
    """Return which cells (B,) belong to a batch with hidden labels."""
    there = np.unique(batch)
    problems = [
        problem("E204", "hidden_batches", f"there is no batch '{name}'", nearest(name, there))
        for name in map(str, hidden_batches)
        if name not in there
    ]
    hidden = np.isin(batch, np.asarray(list(hidden_batches), dtype=str))
    labelled = label != UNKNOWN
    if not problems and labelled.any() and hidden[labelled].all():
        what = "all labels lie in hidden batches, so there is none to learn from"
        problems = [problem("E206", "hidden_batches", what, "leave a labelled batch visible")]
    if problems:
        raise InputError(*problems)
    return hidden


def draw_cells(batch: np.ndarray, label: np.ndarray, shares: Shares, seed: int) -> np.ndarray:
    """Return the part of each cell (B,), stratified by batch and, within, by cell type."""
    rng = np.random.default_rng([seed, 0])
    parts = np.full(len(batch), "train", dtype=object)
    strata = np.unique(batch, return_inverse=True)[1], np.unique(label, return_inverse=True)[1]
    for part, share in (("heldout", shares.heldout), ("validation", shares.validation)):
        left = np.flatnonzero(parts == "train")
        shuffled = left[rng.permutation(len(left))]
        in_strata = shuffled[np.lexsort([strata[1][shuffled], strata[0][shuffled]])]
        parts[in_strata[systematic(len(left), share, rng)]] = part
    return parts


def systematic(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return a mask (n,) of a systematic sample: any run of m neighbours holds share * m ± 1."""
    return np.diff(np.floor(np.arange(n + 1) * share + rng.random())) > 0


def draw_labels(cells, label, hidden, shares: Shares, seed: int) -> np.ndarray:
    """Return the part of each label (B,), stratified by label.

    The held-out cells count towards the share of test labels. A label keeps at least one training
    label, on a training cell where it has one; a label with fewer than three visible cells has
    only training labels outside the held-out cells.
    """
    rng = np.random.default_rng([seed, 1])
    parts = np.full(len(label), "train", dtype=object)
    parts[hidden | (cells == "heldout")] = "test"
    rare = []
    for name in np.unique(label[label != UNKNOWN]):
        visible = (label == name) & ~hidden
        free = np.flatnonzero(visible & (parts == "train"))
        free = free[rng.permutation(len(free))]
        if len(free):  # the last one trains: on a cell that trains the latent, where there is one
            kept = np.argmax(cells[free] == "train")
            free = np.r_[np.delete(free, kept), free[kept]]
        if visible.sum() < FEWEST:
            rare.append(f"{name} ({visible.sum()})")
            continue
        n_test = round_half_up(shares.label_test * visible.sum()) - (visible.sum() - len(free))
        n_test = np.clip(n_test, 0, max(len(free) - 1, 0))
        n_calibration = round_half_up(shares.label_calibration * visible.sum())
        stop = min(n_test + n_calibration, max(len(free) - 1, 0))
        parts[free[:n_test]] = "test"
        parts[free[n_test:stop]] = "calibration"
    if rare:
        print(f"labels too rare to be judged, for training unless held out: {', '.join(rare)}")
    parts[label == UNKNOWN] = "unknown"
    return parts


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up."""
    return int(np.floor(value + 0.5))
