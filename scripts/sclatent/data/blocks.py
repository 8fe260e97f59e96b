"""Counts of all genes, a block of cells at a time: from memory or an h5ad, and into an h5ad.

What is held does not grow with the number of cells, but for eight bytes each and their tables.

Letters for shapes: B cells, G genes, N stored values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h5py
import numpy as np
from scipy import sparse
from scipy.sparse import csr_matrix

from sclatent import files
from sclatent.data import store
from sclatent.data.content import check_declared, readable

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

VALUES = 2**24  # stored values of a block: 130 MB, and a few times that while it is worked on
CHUNK = 2**17  # values of a compressed piece of a file
# With shuffled bytes, level 2 wrote 190 MB/s and level 4 130 MB/s of the same size; level 4 without
# wrote 80 MB/s of 1.6 times the size.
COMPRESSION = {"compression": "gzip", "compression_opts": 2, "shuffle": True}


@dataclass(frozen=True)
class Rows:
    """A matrix (B, G) that is read in blocks of whole rows.

    Attributes
    ----------
    shape
        (B, G).
    dtype
        Of the values.
    n_values
        Stored values, at most.
    blocks : callable
        Takes a mask (B,) of rows, or None for all, and yields CSR matrices of these rows in their
        order.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    n_values: int
    blocks: Callable[[np.ndarray | None], Iterator[csr_matrix]]

    def __iter__(self) -> Iterator[csr_matrix]:
        return self.blocks(None)

    def map(self, function: Callable[[csr_matrix], csr_matrix], dtype) -> Rows:
        """Return what `function` makes of each block; it leaves the shape as it is."""

        def blocks(chosen: np.ndarray | None) -> Iterator[csr_matrix]:
            return map(function, self.blocks(chosen))

        return Rows(self.shape, np.dtype(dtype), self.n_values, blocks)

    def keep(self, rows: np.ndarray | None = None, genes: np.ndarray | None = None) -> Rows:
        """Return the rows of a mask (B,) and the genes at some places, in the order given."""
        rows = np.ones(self.shape[0], dtype=bool) if rows is None else np.asarray(rows)
        shape = (int(rows.sum()), self.shape[1] if genes is None else len(genes))

        def blocks(chosen: np.ndarray | None) -> Iterator[csr_matrix]:
            mask = rows.copy()
            if chosen is not None:
                mask[mask] = chosen
            for block in self.blocks(None if mask.all() else mask):
                if genes is not None:
                    block = block[:, genes]
                    block.sort_indices()
                yield block

        return Rows(shape, self.dtype, self.n_values, blocks)

    def to_csr(self) -> csr_matrix:
        """Return the whole matrix."""
        empty = csr_matrix((0, self.shape[1]), dtype=self.dtype)
        return sparse.vstack([empty, *self], format="csr", dtype=self.dtype)


def spans(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield first and past-the-last row of blocks of at most `VALUES` values, or of one row."""
    start = 0
    while start < len(indptr) - 1:
        stop = int(np.searchsorted(indptr, indptr[start] + VALUES, side="right")) - 1
        stop = max(start + 1, stop)
        yield start, stop
        start = stop


def read_blocks(parts, shape, rows: np.ndarray | None) -> Iterator[csr_matrix]:
    """Yield the rows of a mask from data, indices and indptr, arrays or HDF5 datasets."""
    data, indices, indptr = parts
    for start, stop in spans(indptr):
        chosen = slice(None) if rows is None else rows[start:stop]
        if rows is not None and not chosen.any():
            continue
        span = slice(indptr[start], indptr[stop])
        columns = indices[span]
        if len(columns) and not 0 <= columns.min() <= columns.max() < shape[1]:
            raise ValueError(f"its rows name genes beyond the {shape[1]:,} there are")
        block = csr_matrix(
            (data[span], columns, indptr[start : stop + 1] - indptr[start]),
            shape=(stop - start, shape[1]),
        )
        yield block if rows is None or chosen.all() else block[chosen]


def in_memory(matrix) -> Rows:
    """Return a SciPy CSR matrix (B, G) as counts."""
    parts = matrix.data, matrix.indices, matrix.indptr.astype(np.int64)

    def blocks(rows: np.ndarray | None) -> Iterator[csr_matrix]:
        return read_blocks(parts, matrix.shape, rows)

    return Rows(matrix.shape, matrix.dtype, matrix.nnz, blocks)


def stored(path, place: str, shape: tuple[int, int] | None = None) -> Rows:
    """Return the CSR matrix at a place of an HDF5 file; the file must stay where it is.

    `shape` is what the file says, where it says it as AnnData does.

    Raises
    ------
    InputError
        When the file is damaged; of its values this shows as their block is read.
    """
    with readable(path), h5py.File(files.verified(path)) as file:
        group = file[place]
        for part in ("data", "indices", "indptr"):
            check_declared(group[part])
        indptr = group["indptr"][:].astype(np.int64)
        if shape is None:
            said = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
            shape = int(said[0]), int(said[1])
        n_values, dtype = len(group["data"]), group["data"].dtype
        rising = len(indptr) == shape[0] + 1 and (np.diff(indptr) >= 0).all()
        if not rising or indptr[0] != 0 or not indptr[-1] == n_values == len(group["indices"]):
            raise ValueError(f"the parts of {place} do not fit each other")

    def blocks(rows: np.ndarray | None) -> Iterator[csr_matrix]:
        with readable(path), h5py.File(files.verified(path)) as file:
            yield from read_blocks(
                (file[place]["data"], file[place]["indices"], indptr), shape, rows
            )

    return Rows(shape, dtype, n_values, blocks)


def stack(parts: list[Rows]) -> Rows:
    """Return the rows of several counts with the same genes, one after the other."""
    ends = np.cumsum([part.shape[0] for part in parts])

    def blocks(rows: np.ndarray | None) -> Iterator[csr_matrix]:
        masks = [None] * len(parts) if rows is None else np.split(rows, ends[:-1])
        for part, mask in zip(parts, masks, strict=True):
            yield from part.blocks(mask)

    n_values = sum(part.n_values for part in parts)
    return Rows((int(ends[-1]), parts[0].shape[1]), parts[0].dtype, n_values, blocks)


@dataclass(frozen=True)
class Dataset:
    """Cells and genes of a dataset, and their counts.

    Attributes
    ----------
    table : AnnData
        Everything but the matrices: (B, G) without X.
    counts : Rows
        Raw counts, int32; what the file holds as X.
    layers : dict of str to Rows
        Further matrices.
    """

    table: AnnData
    counts: Rows
    layers: dict[str, Rows] = field(default_factory=dict)

    @property
    def obs(self) -> DataFrame:
        """The table of the cells."""
        return self.table.obs

    def to_anndata(self) -> AnnData:
        """Return all of it in memory."""
        adata = self.table.copy()
        adata.X = self.counts.to_csr()
        for name, counts in self.layers.items():
            adata.layers[name] = counts.to_csr()
        return adata


def from_anndata(adata: AnnData) -> Dataset:
    """Return an AnnData with counts in X as a dataset."""
    table = adata.copy()
    table.X = None
    return Dataset(table, in_memory(csr_matrix(adata.X)))


def read_table(path, splits=None) -> AnnData:
    """Read a file of cells without its counts; `splits` as for `store.read_cells`."""
    import anndata
    from anndata.io import read_elem

    with h5py.File(files.verified(path)) as file:
        names = [name for name in ("obs", "var", "uns", "obsm", "varm") if name in file]
        table = anndata.AnnData(**{name: read_elem(file[name]) for name in names})
    store.join_splits(table.obs, splits, path)
    return table


def open_dataset(path, splits=None) -> Dataset:
    """Read a file of cells that this project wrote; its counts are read when they are asked for."""
    return Dataset(read_table(path, splits), stored(path, "X"))


def write_dataset(path, dataset: Dataset) -> None:
    """Write a dataset as a compressed h5ad, a block at a time, safely, with its hash beside it."""
    with files.safely(path, hashed=True) as partial:
        dataset.table.write_h5ad(partial, compression="gzip", compression_opts=4)
        with h5py.File(partial, "r+") as file:
            if "X" in file:
                del file["X"]
            write_matrix(file, "X", dataset.counts)
            for name, counts in dataset.layers.items():
                write_matrix(file.require_group("layers"), name, counts)


def row_sizes(path) -> np.ndarray:
    """Return how many counts above zero each cell (B,) of a written dataset has."""
    with h5py.File(files.verified(path)) as file:
        return np.diff(file["X/indptr"][:])


def write_matrix(group: h5py.Group, name: str, counts: Rows) -> None:
    """Write counts as AnnData writes CSR matrices."""
    place = group.create_group(name)
    place.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    place.attrs["shape"] = np.array(counts.shape)
    # SciPy wants both index arrays of one type, and AnnData hands it what the file holds.
    index = np.int32 if counts.n_values < 2**31 else np.int64
    data, indices = (
        place.create_dataset(key, (0,), kind, maxshape=(None,), chunks=(CHUNK,), **COMPRESSION)
        for key, kind in (("data", counts.dtype), ("indices", index))
    )
    indptr, n_values = [np.zeros(1, index)], 0
    for block in counts:
        for target, values in ((data, block.data), (indices, block.indices)):
            target.resize(n_values + len(values), axis=0)
            target[n_values:] = values
        indptr.append(n_values + block.indptr[1:].astype(index))
        n_values += block.nnz
    place.create_dataset("indptr", data=np.concatenate(indptr), **COMPRESSION)
