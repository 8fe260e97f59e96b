"""Counts as training holds them: compressed rows with 16-bit gene numbers and values.

A count of 2000 genes takes four bytes where SciPy's CSR takes eight. Values above 65,535 and more
than 65,536 genes fall back to 32 bits, each on its own.

Letters for shapes: n cells, G genes, N non-zero counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix


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


class CompactCounts:
    """The counts of a dataset in memory.

    Parameters
    ----------
    block
        All cells.

    Attributes
    ----------
    shape
        (n, G).
    library_size
        Total of each cell, (n,) int64.
    """

    def __init__(self, block: Block):
        self.block = block
        self.shape = (len(block.indptr) - 1, block.n_genes)
        sums = np.r_[0, np.cumsum(block.values, dtype=np.int64)]
        self.library_size = sums[block.indptr[1:]] - sums[block.indptr[:-1]]

    def take(self, rows: np.ndarray) -> Block:
        """Return some cells, in the order of `rows`."""
        from sclatent.kernels.rows import gather  # only who takes rows waits for a compiler

        return Block(*gather(*self.block[:3], np.atleast_1d(rows)), self.block.n_genes)

    def __getitem__(self, rows: np.ndarray | slice) -> csr_matrix:
        """Return some cells as a SciPy matrix, (n, G) int32."""
        return self.take(np.arange(self.shape[0])[rows]).to_csr()

    def to_csr(self) -> csr_matrix:
        """Return all cells as a SciPy matrix, (n, G) int32."""
        return self.block.to_csr()

    def blocks(self, rows: np.ndarray, size: int = 4096) -> Iterator[csr_matrix]:
        """Yield some cells in SciPy matrices of at most `size` cells."""
        for start in range(0, len(rows), size):
            yield self[rows[start : start + size]]


def compact(counts) -> CompactCounts:
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
    if isinstance(counts, CompactCounts):
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
