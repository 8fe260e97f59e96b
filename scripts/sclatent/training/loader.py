"""Minibatches from compressed counts.

Letters for shapes: B cells of a minibatch, G genes, S batches, N non-zero counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from sclatent.errors import InputError, problem
from sclatent.models.likelihoods import Entries


class Minibatch(NamedTuple):
    """The cells of one step."""

    counts: Tensor  # (B, G) float32
    entries: Entries  # the same counts, only those that are not zero
    library_size: Tensor  # (B, 1) float32
    batch: Tensor  # (B, S) float32, one-hot
    label: Tensor  # (B,) int64, -1 where the model may not see it


@dataclass(frozen=True)
class Cells:
    """What a model may see of a dataset.

    Attributes
    ----------
    counts
        CSR matrix of raw counts, (n_cells, G), canonical.
    batch
        Code of each cell's batch, (n_cells,).
    label
        Code of each cell's type, -1 where it is hidden, (n_cells,).
    batches
        Names of the batches, in the order of their codes.
    device
        Where minibatches go.
    """

    counts: csr_matrix
    batch: np.ndarray
    label: np.ndarray
    batches: list
    device: str = "cpu"

    @property
    def library_size(self) -> np.ndarray:
        """Total counts of each cell over the genes here, at least 1, (n_cells,)."""
        return np.maximum(np.asarray(self.counts.sum(1)).ravel(), 1).astype(np.float64)

    def take(self, rows: np.ndarray) -> Minibatch:
        """Return the cells `rows` as a minibatch."""
        block = self.counts[rows]
        n_genes = block.shape[1]
        dense = torch.from_numpy(block.toarray().astype(np.float32))
        row = np.repeat(np.arange(len(rows)), np.diff(block.indptr))
        gene = torch.from_numpy(block.indices.astype(np.int64))
        entries = Entries(
            torch.from_numpy(row) * n_genes + gene, gene, torch.from_numpy(block.data).float()
        )
        one_hot = torch.nn.functional.one_hot(
            torch.from_numpy(self.batch[rows].astype(np.int64)), len(self.batches)
        )
        minibatch = Minibatch(
            dense,
            entries,
            dense.sum(1, keepdim=True).clamp(min=1),
            one_hot.float(),
            torch.from_numpy(self.label[rows].astype(np.int64)),
        )
        return minibatch if self.device == "cpu" else move(minibatch, self.device)


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
    return Rows(*(np.flatnonzero(split == name) for name in Rows._fields))


def gather_cells(adata, device: str = "cpu", labels=None) -> Cells:
    """Gather what a model may see.

    Parameters
    ----------
    adata
        Raw counts in X, obs `batch`.
    device
        ``cpu`` or ``cuda``.
    labels
        Code of each cell's type, -1 where it is hidden; all hidden by default.

    Raises
    ------
    InputError
        When the device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        what = "training.device is cuda, but torch finds no GPU here"
        raise InputError(problem("config", what, "set training.device: cpu"))
    batch = adata.obs["batch"].cat
    hidden = np.full(adata.n_obs, -1)
    codes = hidden if labels is None else np.asarray(labels)
    return Cells(adata.X, batch.codes.to_numpy(), codes, list(batch.categories), device)


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
        (n_cells,) int64, and the sorted names.

    Raises
    ------
    InputError
        When fewer than two classes remain.
    """
    cell_type = adata.obs["cell_type"].to_numpy().astype(str)
    seen = (adata.obs["labels_split"] == "train").to_numpy()
    train = seen & (adata.obs["cells_split"] == "train").to_numpy()
    names, sizes = np.unique(cell_type[train], return_counts=True)
    classes = sorted(names[sizes >= min_cells])
    rare = sorted(set(names) - set(classes))
    if rare:
        print(f"WARNING fewer than {min_cells} cells to learn from, not learnt: {', '.join(rare)}")
    if len(classes) < 2:
        what = (
            f"{len(classes)} labels have at least {min_cells} cells to learn from; two are needed"
        )
        fix = "label more cells, lower scanvi.min_cells_per_label, or leave scanvi out of latents"
        raise InputError(problem("obs['cell_type']", what, fix))
    code = {name: number for number, name in enumerate(classes)}
    values = zip(cell_type, seen, strict=True)
    return np.array([code.get(name, -1) if known else -1 for name, known in values]), classes


def move(minibatch: Minibatch, device: str) -> Minibatch:
    """Copy a minibatch to a device."""
    entries = Entries(*(tensor.to(device) for tensor in minibatch.entries))
    counts, _, *others = minibatch
    return Minibatch(counts.to(device), entries, *(tensor.to(device) for tensor in others))


def slices(n_cells: int, size: int) -> list[slice]:
    """Cut `n_cells` into minibatches of `size`; a last one of a single cell joins its neighbour.

    Batch normalisation has no variance to estimate from one cell.
    """
    starts = list(range(0, n_cells, size))
    if len(starts) > 1 and n_cells - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n_cells], strict=True)]


def shuffled(rows: np.ndarray, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of each minibatch of one epoch, in random order."""
    order = generator.permutation(rows)
    for part in slices(len(order), size):
        # Sorted rows are gathered faster; the order within a minibatch does not matter.
        yield np.sort(order[part])
