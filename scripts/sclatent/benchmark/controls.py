"""Embeddings whose scores are known beforehand, to hold the scores of latents against.

``shuffled`` carries nothing about a cell; ``labels`` carries its type and nothing else. A metric on
which a latent does no better than the one, or the other does badly, says little on that dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclatent.benchmark.score import Judge, score_latent
from sclatent.data.store import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

JITTER = 0.05
"""Standard deviation of the noise on the labels' corners, which lie 1.4 apart."""


def shuffle_cells(latent: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a latent (B, L) in random order: every cell gets another's place."""
    return latent[np.random.default_rng([seed, 2]).permutation(len(latent))]


def embed_labels(cell_types, n_columns: int, seed: int) -> np.ndarray:
    """Return one-hot labels with a little noise (B, at least `n_columns`).

    Cells without a label get a corner at random. Columns beyond the labels hold noise only.

    Parameters
    ----------
    cell_types : sequence of B names
    n_columns : int
        The width of the latents it is compared with; more when there are more labels.
    """
    rng = np.random.default_rng([seed, 3])
    cell_types = np.asarray(cell_types, dtype=str)
    names = np.unique(cell_types[cell_types != UNKNOWN])
    corners = rng.integers(max(len(names), 1), size=len(cell_types))
    known = cell_types != UNKNOWN
    corners[known] = np.searchsorted(names, cell_types[known])
    embedding = rng.normal(0.0, JITTER, (len(cell_types), max(n_columns, len(names), 1)))
    embedding[np.arange(len(cell_types)), corners] += 1
    return embedding


def score_controls(latent: np.ndarray, cell_types, judge: Judge, seed: int) -> pd.DataFrame:
    """Score both controls as latents are scored; `latent` (B, L) is the one that is shuffled."""
    import pandas as pd

    controls = {
        "shuffled": shuffle_cells(latent, seed),
        "labels": embed_labels(cell_types, latent.shape[1], seed),
    }
    tables = []
    for name, control in controls.items():
        print(f"control {name}:")
        tables.append(score_latent(control, judge, name, seed))
    return pd.concat(tables, ignore_index=True)
