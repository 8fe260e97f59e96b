"""In which order cells are learnt from, and who gathers them meanwhile.

Everything is drawn from a NumPy generator at the beginning of an epoch, so that an epoch can be
drawn again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sclatent.data.compressed import ranges
from sclatent.data.stream import ahead

if TYPE_CHECKING:
    from sclatent.training.loader import Cells, Minibatch

RUN = 128
"""Neighbouring cells that are read from disk together."""


def slices(n_cells: int, size: int) -> list[slice]:
    """Cut `n_cells` into minibatches of `size`; a last one of a single cell joins its neighbour.

    Batch normalisation has no variance to estimate from one cell.
    """
    starts = list(range(0, n_cells, size))
    if len(starts) > 1 and n_cells - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n_cells], strict=True)]


def shuffled(
    rows: np.ndarray, size: int, generator: np.random.Generator, pool: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the rows of each minibatch of one epoch, in random order.

    Any order of the cells is as likely as another. With a pool that does not hold all of them they
    come pool by pool, so that counts on disk can be read in runs of neighbouring cells.

    Parameters
    ----------
    rows
        Of the cells, rising.
    size
        Cells of a minibatch.
    generator
        Drawn from once, before the first minibatch.
    pool
        Cells of a pool, rounded up to whole runs; all by default.
    """
    if pool is None or pool >= len(rows):
        order = iter([generator.permutation(len(rows))])
    else:
        own = np.random.default_rng(generator.integers(2**63, size=2))
        order = pooled(len(rows), -(-pool // RUN), own)
    ready = np.zeros(0, dtype=np.int64)
    for part in slices(len(rows), size):
        n_cells = part.stop - part.start
        while len(ready) < n_cells:
            ready = np.concatenate([ready, next(order)])
        # Sorted rows are gathered faster; the order within a minibatch does not matter.
        yield np.sort(rows[ready[:n_cells]])
        ready = ready[n_cells:]


def pooled(n_cells: int, n_runs: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the numbers below `n_cells` pool by pool, those of a pool in random order.

    A pool is made of `n_runs` runs of neighbouring cells, drawn among all runs. No more is held in
    memory than a pool and the order of the runs.
    """
    starts = generator.permutation(-(-n_cells // RUN)) * RUN
    for at in range(0, len(starts), n_runs):
        begin = starts[at : at + n_runs]
        yield generator.permutation(ranges(begin, np.minimum(begin + RUN, n_cells)))


def draw_epoch(
    cells: Cells,
    rows: np.ndarray,
    size: int,
    generator: np.random.Generator,
    pool_cells: int,
    done: int = 0,
) -> Iterator[Minibatch]:
    """Yield the minibatches of one epoch.

    Parameters
    ----------
    cells, rows, size, generator
        As for `shuffled`.
    pool_cells
        Cells of a pool when counts are on disk. In memory one pool holds all.
    done
        Minibatches to leave out at the beginning; the generator is drawn from all the same.
    """
    pool = -(-pool_cells // RUN) * RUN if cells.counts.on_disk else len(rows)
    parts = shuffled(rows, size, generator, pool)
    return stream(cells, islice(parts, done, None), pool)


def stream(cells: Cells, parts: Iterable[np.ndarray], pool: int) -> Iterator[Minibatch]:
    """Yield minibatches with the rows of each of `parts`; a pool is read while one is used."""

    def read(together: list) -> tuple:
        return together, cells.counts.read(np.concatenate(together))

    for together, counts in ahead(partial(read, some) for some in pools(parts, pool)):
        for rows in together:
            yield cells.take(rows, counts)
        del counts  # so that two pools are in memory, not three


def pools(parts: Iterable[np.ndarray], size: int) -> Iterator[list]:
    """Gather the rows of minibatches in lists, as those of pools of `size` cells come up."""
    pool, n_cells, end = [], 0, size
    for part in parts:
        if n_cells >= end:
            yield pool
            pool, end = [], end + size
        pool.append(part)
        n_cells += len(part)
    if pool:
        yield pool


def draw_labelled(
    label: np.ndarray, n: int, even: bool, generator: np.random.Generator
) -> np.ndarray:
    """Return `n` positions of labelled cells, drawn with replacement, in order.

    Parameters
    ----------
    label
        (n_cells,), -1 where there is none; such cells are never drawn.
    n
        How many to draw.
    even
        Whether every label is equally likely, or every labelled cell.
    generator
        Draws them.
    """
    weight = (label >= 0).astype(float)
    if even:
        _, place, size = np.unique(label, return_inverse=True, return_counts=True)
        weight /= size[place]
    return np.sort(generator.choice(len(label), n, p=weight / weight.sum()))
