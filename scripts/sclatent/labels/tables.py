"""The table of a classifier's labels: every cell, its predicted type, and all probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent import files

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "p:"
"""Before the class in the name of its column of probabilities."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of B cells and C classes.

    Attributes
    ----------
    cells : (B,) array of names
    classes : (C,) array of names
    probabilities : (B, C) array, rows sum to 1
    """

    cells: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The most probable class of each cell (B,); the first of equals."""
        return self.classes[self.probabilities.argmax(axis=1)]


def labels_table(cells, classes, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the table that every classifier writes.

    Parameters
    ----------
    cells : sequence of B names
    classes : sequence of C names
    probabilities : (B, C) array
        Rows sum to 1.

    Returns
    -------
    DataFrame
        Columns `cell`, `label` (the most probable class), `probability` (its probability) and
        ``p:<class>`` for each class.
    """
    import pandas as pd

    probabilities = np.asarray(probabilities, dtype=np.float64)
    found = Predictions(np.asarray(cells, str), np.asarray(classes, str), probabilities)
    head = {"cell": found.cells, "label": found.labels, "probability": probabilities.max(axis=1)}
    columns = [f"{PREFIX}{name}" for name in found.classes]
    return pd.concat(
        [pd.DataFrame(head), pd.DataFrame(probabilities, columns=columns)], axis="columns"
    )


def write_labels(path, table: pd.DataFrame) -> None:
    """Write a table of `labels_table`."""
    files.write_table(path, table)


def read_labels(path, cells=None) -> Predictions:
    """Read a table of `labels_table`, in the order of `cells` when these are given.

    Raises
    ------
    InputError
        When cells are missing from it.
    """
    from sclatent.data.store import positions

    table = files.read_table(path)
    if cells is not None:
        table = table.iloc[positions(table["cell"], cells, "the cells asked for", path, "cell")]
    columns = [name for name in table.columns if name.startswith(PREFIX)]
    classes = np.array([name.removeprefix(PREFIX) for name in columns], dtype=str)
    return Predictions(
        table["cell"].to_numpy(dtype=str), classes, table[columns].to_numpy(dtype=np.float64)
    )
