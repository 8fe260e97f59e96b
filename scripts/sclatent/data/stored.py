"""Counts on disk: a folder of flat files that is read in blocks, with little memory.

indptr         int64, where each cell begins and the last one ends, in counts
genes          uint16 or int32, rising within a cell
values         uint16 or int32, > 0
library_size   int64, total of each cell
counts.json    format, shape, and of each file its type of numbers, how many, and its SHA-256; it
               is written last, so that a folder without it holds nothing

Letters for shapes: n cells, G genes, N non-zero counts.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sclatent import files
from sclatent.data.compact import CompactCounts, Counts
from sclatent.data.compressed import Block, ranges
from sclatent.errors import InputError, problem

FORMAT = 1
NAMES = ("indptr", "genes", "values", "library_size")
GAP = 8
"""Cells between two others that are rather read than skipped: a second request takes longer."""
CHUNK = 2**20
"""Numbers that are converted at a time."""


class Column:
    """A flat file of numbers that is being written, and hashed on the way."""

    def __init__(self, path: Path, dtype):
        self.path, self.dtype, self.size = path, np.dtype(dtype), 0
        self.digest = hashlib.sha256()
        path.write_bytes(b"")

    def append(self, numbers: np.ndarray) -> None:
        """Add numbers at the end; where they need more bits, all get them."""
        if numbers.dtype.itemsize > self.dtype.itemsize:
            self.widen(numbers.dtype)
        with open(self.path, "ab") as file:
            for start in range(0, len(numbers), CHUNK):
                chunk = np.ascontiguousarray(numbers[start : start + CHUNK], dtype=self.dtype)
                file.write(chunk)
                self.digest.update(chunk)
        self.size += len(numbers)

    def widen(self, dtype) -> None:
        """Write the file again with larger numbers."""
        narrow = self.path.with_suffix(".narrow")
        os.replace(self.path, narrow)
        wide = Column(self.path, dtype)
        with open(narrow, "rb") as file:
            while len(chunk := np.fromfile(file, self.dtype, CHUNK)):
                wide.append(chunk)
        narrow.unlink()
        vars(self).update(vars(wide))

    def close(self) -> dict:
        """Sync the file and return what there is to know of it."""
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())
        return {"dtype": self.dtype.str, "size": self.size, "sha256": self.digest.hexdigest()}


def write_counts(folder: str | os.PathLike, blocks: Iterable[Block], n_genes: int) -> None:
    """Write counts for `StoredCounts`.

    Parameters
    ----------
    folder
        Made when it is missing.
    blocks
        The cells in order, with G genes each.
    n_genes
        G.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "counts.json").unlink(missing_ok=True)
    columns = {name: Column(folder / name, np.int64) for name in ("indptr", "library_size")}
    columns |= {name: Column(folder / name, np.uint16) for name in ("genes", "values")}
    columns["indptr"].append(np.zeros(1, dtype=np.int64))
    for block in blocks:
        columns["indptr"].append(block.indptr[1:] + columns["genes"].size)
        columns["genes"].append(block.genes)
        columns["values"].append(block.values)
        columns["library_size"].append(block.library_size())
    written = {name: column.close() for name, column in columns.items()}
    shape = [columns["library_size"].size, n_genes]
    content = {"format": FORMAT, "shape": shape, "files": written}
    files.write_json(folder / "counts.json", content)


class Pool(NamedTuple):
    """Some cells that were read, by their rows in all counts."""

    rows: np.ndarray  # rising
    counts: CompactCounts

    def take(self, rows: np.ndarray) -> Block:
        """Return some of the cells, in the order of `rows`."""
        return self.counts.take(np.searchsorted(self.rows, rows))

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Return the totals of some of the cells, int64, in the order of `rows`."""
        return self.counts.totals(np.searchsorted(self.rows, rows))


class StoredCounts(Counts):
    """Counts that stay on disk; nothing is kept in memory for each cell.

    The files are kept open: the folder may be removed while they are read.

    Parameters
    ----------
    folder
        As written by `write_counts`.

    Raises
    ------
    InputError
        When a file is not the one that was written.
    """

    on_disk = True

    def __init__(self, folder: str | os.PathLike):
        content = read_content(Path(folder))
        self.shape = tuple(content["shape"])
        self.dtypes = {name: np.dtype(content["files"][name]["dtype"]) for name in NAMES}
        self.descriptors = {name: os.open(Path(folder) / name, os.O_RDONLY) for name in NAMES}
        for descriptor in self.descriptors.values():
            weakref.finalize(self, os.close, descriptor)

    def column(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return the numbers of a file from the one at `start` on, up to `stop`."""
        numbers = np.empty(stop - start, self.dtypes[name])
        self.fill(name, numbers, start)
        return numbers

    def fill(self, name: str, numbers: np.ndarray, start: int) -> None:
        """Read numbers of a file from the one at `start` on, as many as there is room for."""
        room, at = memoryview(numbers).cast("B"), start * numbers.itemsize
        while len(room):
            n_read = os.preadv(self.descriptors[name], [room], at)
            if not n_read:
                raise EOFError(f"the file {name} of stored counts ends too early")
            room, at = room[n_read:], at + n_read

    @property
    def library_size(self) -> np.ndarray:
        """Total of each cell, (n,) int64; read anew each time."""
        return self.column("library_size", 0, self.shape[0])

    def read(self, rows: np.ndarray) -> Pool:
        """Read some cells, and those between them where that is faster.

        Parameters
        ----------
        rows
            In any order. Neighbours are read together.
        """
        rows = np.unique(rows).astype(np.int64)
        apart = np.diff(rows) > GAP + 1
        first = rows[np.r_[True, apart][: len(rows)]]
        stop = rows[np.r_[apart, True][: len(rows)]] + 1
        spans = [self.column("indptr", *span) for span in zip(first, stop + 1, strict=True)]
        sizes = [np.zeros(1, dtype=np.int64), *map(np.diff, spans)]
        indptr = np.cumsum(np.concatenate(sizes))
        genes, values = (np.empty(indptr[-1], self.dtypes[name]) for name in ("genes", "values"))
        at = 0
        for ends in spans:
            to = at + int(ends[-1] - ends[0])
            self.fill("genes", genes[at:to], int(ends[0]))
            self.fill("values", values[at:to], int(ends[0]))
            at = to
        counts = CompactCounts(Block(indptr, genes, values, self.shape[1]))
        return Pool(ranges(first, stop), counts)

    def take(self, rows: np.ndarray) -> Block:
        """Return some cells, in the order of `rows`."""
        return self.read(rows).take(rows)


def read_content(folder: Path) -> dict:
    """Read what a folder of counts holds, and check its files.

    Raises
    ------
    InputError
        When they are not those that were written.
    """
    fix = "delete the folder and run again"
    if not (folder / "counts.json").is_file():
        raise InputError(problem("E322", str(folder), "there is no counts.json in it", fix))
    content = files.read_json(folder / "counts.json")
    if content.get("format") != FORMAT:
        what = f"format {content.get('format')}, this release reads {FORMAT}"
        raise InputError(problem("E323", str(folder), what, fix))
    for name in NAMES:
        if files.sha256(folder / name) != content["files"][name]["sha256"]:
            what = "it is not what was written (its SHA-256 differs)"
            raise InputError(problem("E321", str(folder / name), what, fix))
    return content
