"""Minibatches from compressed counts.

Letters for shapes: B cells of a minibatch, G genes, S batches, N non-zero counts, C columns of
one-hot covariates other than the batch, M numeric covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.data.compact import Counts, compact
from sclatent.data.compressed import Block
from sclatent.data.store import covariates
from sclatent.errors import InputError, problem
from sclatent.models.likelihoods import Entries


@dataclass(frozen=True)
class Minibatch:
    """The cells of one step.

    Their counts stand in compressed rows. `counts` and `entries` are made from them when a model
    asks; the kernels read the rows themselves.
    """

    block: Block  # the counts in compressed rows
    library_size: Tensor  # (B, 1) float32
    batch: Tensor  # (B, S) float32, one-hot
    categorical: Tensor  # (B, C) float32, one-hot columns of the other categorical covariates
    continuous: Tensor  # (B, M) float32
    label: Tensor  # (B,) int64, -1 where the model may not see it
    rows: Tensor  # (B,) int64, where the cells stand in the data
    labelled: Minibatch | None = None  # other cells, drawn for their labels

    def __len__(self) -> int:
        """Return the number of cells, B."""
        return len(self.rows)

    @cached_property
    def counts(self) -> Tensor:
        """The counts, (B, G) float32."""
        row, gene, value = self.entries
        dense = torch.zeros(len(self), self.block.n_genes, device=value.device)
        return dense.index_put_((row, gene), value)

    @cached_property
    def entries(self) -> Entries:
        """The counts that are not zero."""
        block, device = self.block, self.library_size.device
        row = np.repeat(np.arange(len(self)), np.diff(block.indptr))
        return Entries(
            torch.from_numpy(row).to(device),
            torch.from_numpy(block.genes.astype(np.int64)).to(device),
            torch.from_numpy(block.values.astype(np.float32)).to(device),
        )

    def replace(self, **fields) -> Minibatch:
        """Return the same cells with other values in some fields."""
        return replace(self, **fields)

    def in_batch(self, code: int) -> Minibatch:
        """Return the same cells as if they all came from one batch."""
        batch = torch.zeros_like(self.batch)
        batch[:, code] = 1
        return self.replace(batch=batch)

    def to(self, device: str) -> Minibatch:
        """Copy to a device."""
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, (Tensor, Minibatch))
        }
        return self.replace(**moved)


class Sizes(NamedTuple):
    """What a model must know of the data to be built."""

    genes: int
    batches: int = 1
    labels: int = 0
    categorical: int = 0  # one-hot columns beside those of the batch
    continuous: int = 0

    @property
    def columns(self) -> int:
        """One-hot columns in all; a single batch tells nothing and has none."""
        return self.categorical + (self.batches if self.batches > 1 else 0)


@dataclass(frozen=True)
class Covariates:
    """Covariates of cells beside their batch.

    Attributes
    ----------
    categories
        The categories of each categorical covariate that has more than one.
    numbers
        Names of the continuous covariates.
    one_hot
        (n_cells, C) float32.
    values
        (n_cells, M) float32.
    """

    categories: dict
    numbers: list
    one_hot: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Cells:
    """What a model may see of a dataset.

    Attributes
    ----------
    counts
        Raw counts, (n_cells, G), in memory or on disk; a SciPy matrix is made compact.
    batch
        Code of each cell's batch, (n_cells,) of any integers.
    label
        Code of each cell's type, -1 where it is hidden, (n_cells,) of any integers.
    batches
        Names of the batches, in the order of their codes.
    device
        Where minibatches go.
    covariates
        Further covariates; none by default.
    classes
        Names of the labels, in the order of their codes.
    """

    counts: Counts
    batch: np.ndarray
    label: np.ndarray
    batches: list
    device: str = "cpu"
    covariates: Covariates | None = None
    classes: list = field(default_factory=list)

    def __post_init__(self):
        object.__setattr__(self, "counts", compact(self.counts))
        if self.covariates is None:
            nothing = np.zeros((self.counts.shape[0], 0), dtype=np.float32)
            object.__setattr__(self, "covariates", Covariates({}, [], nothing, nothing))

    @property
    def library_size(self) -> np.ndarray:
        """Total counts of each cell over the genes here, at least 1, (n_cells,)."""
        return np.maximum(self.counts.library_size, 1, dtype=np.float64)

    @cached_property
    def batch_columns(self) -> np.ndarray:
        """The one-hot columns of each batch, (S, S) float32."""
        return np.eye(len(self.batches), dtype=np.float32)

    @property
    def generators(self) -> list:
        """Devices beside the CPU whose random numbers a model draws here."""
        return list(range(torch.cuda.device_count())) if self.device == "cuda" else []

    @property
    def sizes(self) -> Sizes:
        """What a model must know to be built."""
        return Sizes(
            self.counts.shape[1],
            len(self.batches),
            len(self.classes),
            self.covariates.one_hot.shape[1],
            self.covariates.values.shape[1],
        )

    def take(self, rows: np.ndarray, pool=None) -> Minibatch:
        """Return the cells `rows` as a minibatch; their counts are in `pool` if they were read."""
        there = self.counts.read(rows) if pool is None else pool
        parts = (
            np.maximum(there.totals(rows), 1).astype(np.float32)[:, None],
            self.batch_columns[self.batch[rows]],
            self.covariates.one_hot[rows],
            self.covariates.values[rows],
            self.label[rows].astype(np.int64),
            np.asarray(rows, dtype=np.int64),
        )
        minibatch = Minibatch(there.take(rows), *map(torch.from_numpy, parts))
        return minibatch if self.device == "cpu" else minibatch.to(self.device)


class Rows(NamedTuple):
    """Rows of the cells of each split."""

    train: np.ndarray
    validation: np.ndarray
    heldout: np.ndarray


def split_rows(adata) -> Rows:
    """Return the rows of the training, validation and held-out cells.

    Parameters
    ----------
    adata
        Cells with obs `cells_split`, as `read_cells` gives them with splits.
    """
    split = adata.obs["cells_split"].to_numpy()
    return Rows(*(np.flatnonzero(split == name).astype(np.int32) for name in Rows._fields))


def gather_cells(adata, device: str = "cpu", min_cells_per_label: int = 0) -> Cells:
    """Gather what a model may see.

    Parameters
    ----------
    adata
        Raw counts in X, obs `batch`, and the covariates that `uns` names; with labels also obs
        `cell_type`, `cells_split` and `labels_split`.
    device
        ``cpu`` or ``cuda``.
    min_cells_per_label
        The labels that training may see are given too, those with at least so many training
        cells; 0 hides all of them.

    Raises
    ------
    InputError
        When the device is not there, or there are too few labels.
    """
    if device == "cuda" and not torch.cuda.is_available():
        what = "training.device is cuda, but torch finds no GPU here"
        raise InputError(problem("E502", "config", what, "set training.device: cpu"))
    batch = adata.obs["batch"].cat
    codes, classes = np.full(adata.n_obs, -1, dtype=np.int8), []
    if min_cells_per_label:
        codes, classes = seen_labels(adata, min_cells_per_label)
    return Cells(
        *(adata.X, batch.codes.to_numpy(), codes, list(batch.categories), device),
        covariates=gather_covariates(adata),
        classes=classes,
    )


def gather_covariates(adata) -> Covariates:
    """Gather the covariates that `adata.uns` names; a category that all cells share is none."""
    categorical, continuous = covariates(adata)
    columns = {name: adata.obs[name].astype("category").cat for name in categorical}
    columns = {name: column for name, column in columns.items() if len(column.categories) > 1}
    one_hot = [
        np.eye(len(column.categories), dtype=np.float32)[column.codes]
        for column in columns.values()
    ]
    nothing = np.zeros((adata.n_obs, 0), dtype=np.float32)
    return Covariates(
        {name: list(column.categories) for name, column in columns.items()},
        continuous,
        np.concatenate([nothing, *one_hot], 1),
        adata.obs[continuous].to_numpy(np.float32) if continuous else nothing,
    )


def seen_labels(adata, min_cells: int) -> tuple[np.ndarray, list[str]]:
    """Return the labels that training may see, as codes, and the names of the classes.

    A class is a label with at least `min_cells` cells whose label is seen and that train; labels
    of the test and calibration cells, of held-out cells and of rarer types are -1.

    Parameters
    ----------
    adata
        Cells with obs `cell_type`, `cells_split`, `labels_split`.
    min_cells
        Fewest training cells of a class.

    Returns
    -------
    codes, classes
        (n_cells,) int32, and the sorted names.

    Raises
    ------
    InputError
        When no label is there to learn from, or fewer than two classes remain.
    """
    cell_type = adata.obs["cell_type"].to_numpy().astype(str)
    seen = (adata.obs["labels_split"] == "train").to_numpy()
    train = seen & (adata.obs["cells_split"] == "train").to_numpy()
    names, sizes = np.unique(cell_type[train], return_counts=True)
    if not len(names):
        what = f"none of {len(cell_type):,} cells has a label to learn from"
        fix = (
            "leave what needs labels out of latents, and the same command goes on with the rest; "
            "or correct cell_type and unknown"
        )
        raise InputError(problem("E206", "obs['cell_type']", what, fix))
    classes = sorted(names[sizes >= min_cells])
    rare = sorted(set(names) - set(classes))
    if rare:
        print(f"WARNING fewer than {min_cells} cells to learn from, not learnt: {', '.join(rare)}")
    if len(classes) < 2:
        what = (
            f"{len(classes)} labels have at least {min_cells} cells to learn from; two are needed"
        )
        fix = (
            "label more cells, lower scanvi.min_cells_per_label, "
            "or leave out of latents what needs labels"
        )
        raise InputError(problem("E207", "obs['cell_type']", what, fix))
    return label_codes(adata, classes), classes


def label_codes(adata, classes: list) -> np.ndarray:
    """Return the position among `classes` of each label that training may see, else -1."""
    seen = (adata.obs["labels_split"] == "train").to_numpy()
    code = {name: number for number, name in enumerate(classes)}
    values = zip(adata.obs["cell_type"].astype(str), seen, strict=True)
    codes = (code.get(name, -1) if known else -1 for name, known in values)
    return np.fromiter(codes, dtype=np.int32, count=adata.n_obs)
