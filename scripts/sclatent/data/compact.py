"""Counts as training holds them: compressed rows with 16-bit gene numbers and values.

A count of 2000 genes takes four bytes where SciPy's CSR takes eight. Values above 65,535 and more
than 65,536 genes fall back to 32 bits, each on its own.

Letters for shapes: n cells, G genes, N non-zero counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

BLOCK = 4096
"""Cells that are looked at together by what goes over many."""


class Moments(NamedTuple):
    """Sums over cells, exact as long as they stay below 2^53."""

    total: np.ndarray  # (G,) float64, of the counts
    squares: np.ndarray  # (G,) float64, of their squares


class Block(NamedTuple):
    """Some cells, in compressed rows."""

    indptr: np.ndarray  # (n + 1,) int64
    genes: np.ndarray  # (N,) uint16 or int32, rising within a cell
    values: np.ndarray  # (N,) uint16 or int32, > 0
    n_genes: int

    def take(self, rows: np.ndarray) -> Block:
        """Return some of the cells, in the order of `rows`."""
        from sclatent.kernels.rows import gather  # only who takes rows waits for the compiler

        rows = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        parts = gather(self.indptr, self.genes, self.values, rows)
        return Block(*parts, self.n_genes)

    def to_csr(self) -> csr_matrix:
        """Return the same counts as a SciPy matrix of int32, (n, G)."""
        shape = (len(self.indptr) - 1, self.n_genes)
        parts = (self.values.astype(np.int32), self.genes.astype(np.int32), self.indptr)
        return csr_matrix(parts, shape=shape)

    def library_size(self) -> np.ndarray:
        """Return the total of each cell, (n,) int64."""
        total = np.zeros(len(self.indptr) - 1, dtype=np.int64)
        for start in range(0, len(total), BLOCK):
            indptr = self.indptr[start : start + BLOCK + 1]
            sums = np.cumsum(self.values[indptr[0] : indptr[-1]], dtype=np.int64)
            total[start : start + BLOCK] = np.diff(np.r_[0, sums][indptr - indptr[0]])
        return total


class Counts:
    """The counts of the cells of a dataset, wherever they are.

    Attributes
    ----------
    shape
        (n, G).
    library_size
        Total of each cell, (n,) int64.
    on_disk
        Whether cells are read when they are asked for.
    """

    shape: tuple[int, int]
    library_size: np.ndarray
    on_disk = False

    def take(self, rows: np.ndarray) -> Block:
        """Return some cells, in the order of `rows`."""
        raise NotImplementedError

    def read(self, rows: np.ndarray):
        """Return what holds at least the cells `rows` in memory; it has `take` and `totals`."""
        raise NotImplementedError

    def __getitem__(self, rows: np.ndarray | slice) -> csr_matrix:
        """Return some cells as a SciPy matrix, (n, G) int32."""
        return self.take(np.arange(self.shape[0])[rows]).to_csr()

    def to_csr(self) -> csr_matrix:
        """Return all cells as a SciPy matrix, (n, G) int32."""
        return self[:]

    def blocks(self, rows: np.ndarray, size: int = BLOCK) -> Iterator[csr_matrix]:
        """Yield some cells in SciPy matrices of at most `size` cells."""
        for start in range(0, len(rows), size):
            yield self[rows[start : start + size]]

    def moments(self, rows: np.ndarray) -> Moments:
        """Return the sums over some cells, from one block after the other."""
        total, squares = np.zeros(self.shape[1]), np.zeros(self.shape[1])
        for start in range(0, len(rows), BLOCK):
            block = self.take(rows[start : start + BLOCK])
            values = block.values.astype(np.float64)
            total += np.bincount(block.genes, values, self.shape[1])
            squares += np.bincount(block.genes, values**2, self.shape[1])
        return Moments(total, squares)


class CompactCounts(Counts):
    """The counts of a dataset in memory.

    Parameters
    ----------
    block
        All cells.
    """

    def __init__(self, block: Block):
        self.block = block
        self.shape = (len(block.indptr) - 1, block.n_genes)
        self.library_size = block.library_size()

    def take(self, rows: np.ndarray) -> Block:
        """Return some cells, in the order of `rows`."""
        return self.block.take(rows)

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Return the totals of some cells, int64, in the order of `rows`."""
        return self.library_size[rows]

    def read(self, rows: np.ndarray) -> CompactCounts:
        """Return these counts: all cells are in memory."""
        return self

    def to_csr(self) -> csr_matrix:
        """Return all cells as a SciPy matrix, (n, G) int32."""
        return self.block.to_csr()


class Growing:
    """Counts that come in blocks, one after the other; in memory each is held once.

    Parameters
    ----------
    n_genes
        G of every block.
    """

    def __init__(self, n_genes: int):
        self.ends, self.n_genes = [np.zeros(1, dtype=np.int64)], n_genes
        self.genes = self.values = np.zeros(0, dtype=np.uint16)

    @property
    def nbytes(self) -> int:
        """Bytes of the genes and values so far."""
        return self.genes.nbytes + self.values.nbytes

    def append(self, block: Block) -> None:
        """Add the cells of a block."""
        self.ends.append(block.indptr[1:] + len(self.genes))
        self.genes = extended(self.genes, block.genes)
        self.values = extended(self.values, block.values)

    def block(self) -> Block:
        """Return all cells."""
        return Block(np.concatenate(self.ends), self.genes, self.values, self.n_genes)


def extended(array: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return an array with more values at its end; it grows in place where it can."""
    dtype = np.promote_types(array.dtype, more.dtype) if len(array) else more.dtype
    array = array.astype(dtype, copy=not len(array))
    n = len(array)
    # Large arrays grow by moving pages, not by copying.
    array.resize(n + len(more), refcheck=False)
    array[n:] = more
    return array


def join(blocks: Iterable[Block], n_genes: int) -> Block:
    """Return the cells of several blocks as one."""
    growing = Growing(n_genes)
    for block in blocks:
        growing.append(block)
    return growing.block()


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the numbers from each `begin` up to its `end`, one range after the other."""
    lengths = end - begin
    ends = np.cumsum(lengths)
    numbers = np.arange(ends[-1] if len(ends) else 0)
    numbers += np.repeat(begin - ends + lengths, lengths)
    return numbers


def compact(counts) -> Counts:
    """Return counts in compact form.

    Parameters
    ----------
    counts
        A SciPy matrix of whole numbers from 0 to 2^31 - 1, (n, G), or what is compact already.

    Raises
    ------
    ValueError
        When a value is none of these; the data stage has refused such counts before.
    """
    if isinstance(counts, Counts):
        return counts
    counts = counts.tocsr()
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    if not counts.data.all():
        counts = counts.copy()
        counts.eliminate_zeros()
    genes = counts.indices.astype(np.uint16 if counts.shape[1] <= 2**16 else np.int32)
    return CompactCounts(
        Block(counts.indptr.astype(np.int64), genes, narrow(counts.data), counts.shape[1])
    )


def narrow(values: np.ndarray) -> np.ndarray:
    """Return counts in 16 bits where all fit, else in 32."""
    lowest, highest = (values.min(), values.max()) if len(values) else (0, 0)
    if not (lowest >= 0 and highest < 2**31):
        raise ValueError(f"counts between {lowest} and {highest} are no counts of 31 bits")
    narrowed = values.astype(np.uint16 if highest < 2**16 else np.int32)
    if not np.array_equal(narrowed, values):
        raise ValueError("counts that are not whole numbers")
    return narrowed
