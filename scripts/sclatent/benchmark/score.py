"""Score one latent on one dataset and seed: which cells count, and every metric by name.

Label metrics are measured only on cells whose labels were hidden from every model
(``labels_split == "test"``), for supervised and other latents alike, and of types with at least
ten labelled cells in all. Batch metrics are measured on all cells.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.benchmark import metrics
from sclatent.benchmark.reference import batch_references
from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    import pandas as pd

    from sclatent.data.chosen import ChosenCounts

MIN_CELLS = 10
"""Labelled cells that a type needs in all to be scored."""
METRICS = ("knn_accuracy", "nmi", "ari", "clisi", "graph_connectivity", "ilisi", "preservation")
"""The metrics in the order of the tables."""
LABEL_METRICS = METRICS[:5]
TEST_LABELS, ALL_CELLS = "test labels", "all cells"
"""The two scopes."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """The config's section `benchmark`."""

    n_neighbors: int = 15
    n_neighbors_lisi: int = 90
    n_neighbors_preservation: int = 30
    n_inits: int = 20
    equivalence: float = 0.02
    n_importance_samples: int = 100
    max_likelihood_cells: int = 1000
    max_cells: int = 50_000


@dataclass(frozen=True)
class Judge:
    """What latents are judged by, on B cells.

    Attributes
    ----------
    rows : (B,) array of int
        The cells of the dataset that take part; all, up to `max_cells` of the settings.
    labels : (B,) array of int
        Codes of the types; -1 where the cell has none or its type is too rare.
    batches : (B,) array of int
    judged : (B,) array of bool
        The cells of the label metrics.
    references : dict
        The neighbours to preserve, as `batch_references` returns them.
    settings : BenchmarkSettings
    """

    rows: np.ndarray
    labels: np.ndarray
    batches: np.ndarray
    judged: np.ndarray
    references: dict[int, np.ndarray]
    settings: BenchmarkSettings

    @property
    def confounded(self) -> bool:
        """Whether there are labels and several batches, and no label is in two of them."""
        known = self.labels >= 0
        several = len(np.unique(self.batches)) > 1
        return several and known.any() and not metrics.matchable(self.labels, self.batches).any()


def prepare(cells: ChosenCounts, settings: BenchmarkSettings, seed: int) -> Judge:
    """Choose the cells that are judged and find the neighbours to preserve.

    Parameters
    ----------
    cells
        Counts over the selected genes; obs `batch`, `cell_type`, `labels_split`, `total_counts`
        (counts over all genes).
    seed
        Draws the cells of a dataset with more than `settings.max_cells`: the same for all latents.
    """
    rows = np.arange(cells.n_obs)
    if cells.n_obs > settings.max_cells:
        rng = np.random.default_rng([seed, 4])
        rows = np.sort(rng.choice(rows, settings.max_cells, replace=False))
        print(f"scores are measured on {len(rows):,} of {cells.n_obs:,} cells, drawn at random")
    obs = cells.obs.iloc[rows]
    names, sizes = np.unique(obs["cell_type"].astype(str), return_counts=True)
    scored = [name for name in names[sizes >= MIN_CELLS] if name != UNKNOWN]
    rare = sorted(set(names) - set(scored) - {UNKNOWN})
    if rare:
        print(f"types of fewer than {MIN_CELLS} cells are not scored: {', '.join(rare)}")
    labels = obs["cell_type"].astype(str).map({name: i for i, name in enumerate(scored)})
    labels = labels.fillna(-1).to_numpy(dtype=np.int64)
    judged = (obs["labels_split"].astype(str) == "test").to_numpy() & (labels >= 0)
    batches = np.unique(obs["batch"].astype(str), return_inverse=True)[1]
    library_size = obs["total_counts"].to_numpy(dtype=np.float64)
    k = settings.n_neighbors_preservation
    references = batch_references(cells.X[rows], library_size, batches, k)
    print(
        f"label metrics on {judged.sum():,} test labels of {len(np.unique(labels[judged]))} types"
    )
    print(f"batch metrics on {len(labels):,} cells of {batches.max() + 1} batches")
    return Judge(rows, labels, batches, judged, references, settings)


def refuse_layouts(latent: np.ndarray, name: str) -> None:
    """Raise when an array cannot be a latent to score.

    Raises
    ------
    InputError
        When it has fewer than 3 columns, or values that are not finite.
    """
    if latent.ndim != 2 or latent.shape[1] < 3:
        what = (
            f"an array of shape {latent.shape} is not scored: it may be a 2-D layout, and layouts "
            "tear neighbourhoods apart and invent gaps, so their scores say nothing of the cells"
        )
        raise InputError(
            problem("E503", name, what, "score the latent, with at least 3 dimensions")
        )
    if not np.isfinite(latent).all():
        raise InputError(
            problem("E504", name, "it holds values that are not finite", "compute it anew")
        )


def score_latent(latent: np.ndarray, judge: Judge, name: str, seed: int) -> pd.DataFrame:
    """Measure a latent.

    Parameters
    ----------
    latent : (n_cells, L) array
        Of all cells of the dataset; at least 3 columns.
    name : str
        Goes into the column `latent`.
    seed : int
        Of the repeat; k-means draws from it.

    Returns
    -------
    DataFrame
        A row per metric: `latent`, `seed`, `metric`, `value` (nan: not defined), `n_cells`,
        `scope`, `n_rest` (labelled cells outside the scope: what models could learn from),
        `note`.

    Raises
    ------
    InputError
        As `refuse_layouts`.
    """
    import pandas as pd

    refuse_layouts(latent, name)
    latent = np.asarray(latent[judge.rows], dtype=np.float64)
    values = measure(latent, judge, seed)
    n_judged = int(judge.judged.sum())
    n_matchable = int((judge.judged & metrics.matchable(judge.labels, judge.batches)).sum())
    n_rest = int((judge.labels >= 0).sum()) - n_judged
    rows = []
    for metric in METRICS:
        on_labels = metric in LABEL_METRICS
        rows.append(
            {
                "latent": name,
                "seed": seed,
                "metric": metric,
                "value": values[metric],
                "n_cells": len(latent) if not on_labels else n_judged,
                "scope": TEST_LABELS if on_labels else ALL_CELLS,
                "n_rest": n_rest if on_labels else 0,
                "note": note(metric, values[metric], judge),
            }
        )
    rows[0]["n_cells"] = n_matchable
    return pd.DataFrame(rows)


def measure(latent: np.ndarray, judge: Judge, seed: int) -> dict[str, float]:
    """Return every metric of a latent (B, L) by name, and print how long each took."""
    settings, labels, batches = judge.settings, judge.labels, judge.batches
    test, test_labels = latent[judge.judged], labels[judge.judged]
    k, k_lisi = settings.n_neighbors, settings.n_neighbors_lisi
    measures = {
        ("knn_accuracy",): lambda: metrics.knn_accuracy(latent, labels, batches, judge.judged, k),
        ("nmi", "ari"): lambda: metrics.kmeans_agreement(test, test_labels, settings.n_inits, seed),
        ("clisi",): lambda: metrics.clisi(test, test_labels, k_lisi),
        ("graph_connectivity",): lambda: metrics.graph_connectivity(test, test_labels),
        ("ilisi",): lambda: np.nan if judge.confounded else metrics.ilisi(latent, batches, k_lisi),
        ("preservation",): lambda: metrics.preservation(latent, batches, judge.references),
    }
    values = {}
    for names, compute in measures.items():
        began = time.perf_counter()
        values |= zip(names, np.atleast_1d(compute()).tolist(), strict=True)
        said = ", ".join(f"{name} {values[name]:.3f}" for name in names)
        print(f"{said} ({time.perf_counter() - began:.1f} s)", flush=True)
    return values


def note(metric: str, value: float, judge: Judge) -> str:
    """Return why a metric has no value, or what limits it; empty when nothing does."""
    single = len(np.unique(judge.batches)) == 1
    if metric == "ilisi" and single:
        return "single batch"
    if metric == "ilisi" and judge.confounded:
        return "no type in two batches"
    if metric == "knn_accuracy" and single and not np.isnan(value):
        return "within one batch"
    if not np.isnan(value):
        return ""
    if metric in LABEL_METRICS and not judge.judged.any():
        return "no test labels"
    if metric == "knn_accuracy":
        return "no type in two batches"
    return "too few types or cells"
