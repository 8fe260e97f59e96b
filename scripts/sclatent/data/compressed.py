"""Cells in compressed rows with 16-bit gene numbers and values.

A count of 2000 genes takes four bytes where SciPy's CSR takes eight. Values above 65,535 and more
than 65,536 genes fall back to 32 bits, each on its own.

Letters for shapes: n cells, G genes, N non-zero counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

BLOCK = 4096
"""Cells that are looked at together by what goes over many."""


class Block(NamedTuple):
    """Some cells, in compressed rows."""

    indptr: np.ndarray  # (n + 1,) int64
    genes: np.ndarray  # (N,) uint16 or int32, rising within a cell
    values: np.ndarray  # (N,) uint16 or int32, > 0
    n_genes: int

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


def compress(counts: csr_matrix) -> Block:
    """Return a SciPy matrix of whole numbers from 0 to 2^31 - 1, (n, G), as a block.

    Raises
    ------
    ValueError
        When a value is none of these; the data stage has refused such counts before.
    """
    counts = counts.tocsr()
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    if not counts.data.all():
        counts = counts.copy()
        counts.eliminate_zeros()
    genes = counts.indices.astype(np.uint16 if counts.shape[1] <= 2**16 else np.int32)
    return Block(counts.indptr.astype(np.int64), genes, narrow(counts.data), counts.shape[1])


def narrow(values: np.ndarray) -> np.ndarray:
    """Return counts in 16 bits where all fit, else in 32."""
    lowest, highest = (values.min(), values.max()) if len(values) else (0, 0)
    if not (lowest >= 0 and highest < 2**31):
        raise ValueError(f"counts between {lowest} and {highest} are no counts of 31 bits")
    narrowed = values.astype(np.uint16 if highest < 2**16 else np.int32)
    if not np.array_equal(narrowed, values):
        raise ValueError("counts that are not whole numbers")
    return narrowed
