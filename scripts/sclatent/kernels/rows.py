"""Compressed rows: gathered, and spread to dense rows of the encoder's input.

Letters for shapes: n cells of a dataset, B of a minibatch, G genes, N non-zero counts.
"""

import numpy as np

from sclatent.kernels.arithmetic import kernel, store


@kernel
def gather(indptr, genes, values, rows):
    """Return the rows of a compressed matrix: indptr (B + 1,), genes and values."""
    ends = np.zeros(len(rows) + 1, np.int64)
    for b in range(len(rows)):
        ends[b + 1] = ends[b] + indptr[rows[b] + 1] - indptr[rows[b]]
    there = np.empty(ends[-1], genes.dtype)
    counts = np.empty(ends[-1], values.dtype)
    for b in range(len(rows)):
        shift = indptr[rows[b]] - ends[b]
        for place in range(ends[b], ends[b + 1]):
            there[place] = genes[place + shift]
            counts[place] = values[place + shift]
    return ends, there, counts


@kernel
def spread_logs(block, known, out, first, last):
    """Fill rows `first` to `last` of `out` (B, G) with log1p of the counts.

    Parameters
    ----------
    block
        indptr (B + 1,), genes and values.
    known
        log1p of small counts, float32.
    out
        float32, or bfloat16 as uint16.
    first, last
        Rows.
    """
    indptr, genes, values = block
    for b in range(first, last):
        out[b] = 0
        for place in range(indptr[b], indptr[b + 1]):
            x = np.int64(values[place])
            log = known[x] if x < len(known) else np.float32(np.log1p(np.float64(x)))
            store(out, b, np.int64(genes[place]), log)


@kernel
def spread_standardised(block, size_factor, mean, sd, nothing, out, first, last):
    """Do the same with (log1p(counts / size factor) - mean) / sd.

    Parameters
    ----------
    block, out, first, last
        As for `spread_logs`.
    size_factor
        (B,) float32.
    mean, sd
        (G,) float32.
    nothing
        -mean / sd, as `out` stores it, (G,).
    """
    indptr, genes, values = block
    for b in range(first, last):
        out[b] = nothing
        for place in range(indptr[b], indptr[b + 1]):
            g = np.int64(genes[place])
            log = np.log1p(np.float32(values[place]) / size_factor[b])
            store(out, b, g, np.float32((log - mean[g]) / sd[g]))
