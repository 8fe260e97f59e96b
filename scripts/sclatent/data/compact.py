"""Counts as training holds them: cells in compressed rows, of which some are taken by a kernel.

Letters for shapes: n cells, G genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from sclatent.data.compressed import BLOCK, Block, compress


class Moments(NamedTuple):
    """Sums over cells, exact as long as they stay below 2^53."""

    total: np.ndarray  # (G,) float64, of the counts
    squares: np.ndarray  # (G,) float64, of their squares


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
        from sclatent.kernels.rows import gather  # only who takes rows waits for the compiler

        rows = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        parts = gather(self.block.indptr, self.block.genes, self.block.values, rows)
        return Block(*parts, self.block.n_genes)

    def totals(self, rows: np.ndarray) -> np.ndarray:
        """Return the totals of some cells, int64, in the order of `rows`."""
        return self.library_size[rows]

    def read(self, rows: np.ndarray) -> CompactCounts:
        """Return these counts: all cells are in memory."""
        return self

    def to_csr(self) -> csr_matrix:
        """Return all cells as a SciPy matrix, (n, G) int32."""
        return self.block.to_csr()


def compact(counts) -> Counts:
    """Return a SciPy matrix of counts, (n, G), in compact form; what is compact already, as it is.

    Raises
    ------
    ValueError
        As `compress`.
    """
    return counts if isinstance(counts, Counts) else CompactCounts(compress(counts))
