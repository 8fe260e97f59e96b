"""Counts of chosen genes, read from an h5ad block by block.

Memory holds one block of all genes at a time, and the chosen genes of all cells as long as they fit
into a budget; above it they go to disk.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from os import PathLike

import numpy as np
from scipy.sparse import csr_matrix

from sclatent import files
from sclatent.data.compact import CompactCounts, Counts, compact
from sclatent.data.compressed import Block, Growing
from sclatent.data.stored import StoredCounts, write_counts
from sclatent.errors import InputError, problem

N_COUNTS = 4_000_000
"""Non-zero counts of all genes in a block."""


def ahead(calls: Iterable[Callable]) -> Iterator:
    """Yield the results of calls in order; a thread makes the next one while one is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for call in calls:
            latest = thread.submit(call)
            if waiting is not None:
                yield waiting.result()
            waiting = latest
        if waiting is not None:
            yield waiting.result()


def read_blocks(path: str | PathLike, chosen: np.ndarray, n_counts: int = N_COUNTS):
    """Yield the cells of an h5ad in blocks, with their counts of chosen genes.

    Parameters
    ----------
    path
        An h5ad whose X is a CSR matrix of counts, (n, all genes).
    chosen
        Positions of the genes; the blocks have them in this order.
    n_counts
        Non-zero counts that are read at a time, if more than one cell has them.

    Yields
    ------
    Block
        At least one cell.

    Raises
    ------
    InputError
        When X is stored in another way.
    """
    import h5py

    with h5py.File(files.verified(path)) as file:
        stored = file["X"]
        if stored.attrs.get("encoding-type") != "csr_matrix":
            what = "X is not a matrix in compressed sparse rows"
            raise InputError(problem("E324", str(path), what, "delete the file and run again"))
        indptr, (_, n_genes) = stored["indptr"][:].astype(np.int64), stored.attrs["shape"]
        place = np.full(n_genes, -1, dtype=np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)

        def read(rows: slice) -> tuple:
            here = indptr[rows.start : rows.stop + 1]
            parts = (stored[name][here[0] : here[-1]] for name in ("indices", "data"))
            return here - here[0], *parts

        for rows in ahead(partial(read, rows) for rows in cut(indptr, n_counts)):
            yield choose(*rows, place, len(chosen))


def cut(indptr: np.ndarray, n_counts: int) -> Iterator[slice]:
    """Cut cells into runs with at most `n_counts` counts, or of one cell."""
    start, n_cells = 0, len(indptr) - 1
    while start < n_cells:
        stop = int(np.searchsorted(indptr, indptr[start] + n_counts, side="right")) - 1
        stop = min(max(stop, start + 1), n_cells)
        yield slice(start, stop)
        start = stop


def choose(indptr, indices, data, place: np.ndarray, n_genes: int) -> Block:
    """Return the counts of the genes that have a place, each at its place."""
    genes = place[indices]
    kept = np.flatnonzero(genes >= 0)
    starts = np.searchsorted(kept, indptr)
    counts = csr_matrix((data[kept], genes[kept], starts), shape=(len(indptr) - 1, n_genes))
    return compact(counts).block


def hold(blocks: Iterable[Block], n_genes: int, memory_gb: float) -> Counts:
    """Hold counts in memory or, when they take more than a budget, on disk.

    They then lie in the folder for temporary files, whose place Snakemake's resource `tmpdir` or
    the variable TMPDIR sets. Once written, the files lose their names, so nothing is left behind,
    however the process ends; only one that is killed while it writes leaves its folder.

    Parameters
    ----------
    blocks
        The cells, with G genes each.
    n_genes
        G.
    memory_gb
        The budget, in units of 10^9 bytes.

    Raises
    ------
    InputError
        When the disk is full.
    """
    held, blocks = Growing(n_genes), iter(blocks)
    for block in blocks:
        held.append(block)
        if held.nbytes > memory_gb * 1e9:
            return store(chain([held.block()], blocks), n_genes)
    return CompactCounts(held.block())


def store(blocks: Iterable[Block], n_genes: int) -> StoredCounts:
    """Write counts into files without a name, and return them."""
    with tempfile.TemporaryDirectory(prefix="sclatent-") as folder:
        try:
            write_counts(folder, blocks, n_genes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            what = "there is not enough room for the counts that exceed training.memory_gb"
            fix = "raise it, or name a larger disk with --default-resources tmpdir=FOLDER"
            raise InputError(problem("E410", tempfile.gettempdir(), what, fix)) from error
        counts = StoredCounts(folder)
    print(f"counts of {counts.shape[0]:,} cells x {n_genes:,} genes are held on disk")
    return counts
