"""The rows of a minibatch made into matrices by one Triton program per cell.

The matrices start as those of cells without counts, and only what is not zero is written.

Letters for shapes: n cells, N non-zero counts, B cells of a minibatch, G genes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sclatent.kernels.cuda.rows import DeviceRows, Gathered, Standard, empty

BLOCK = 256


@triton.jit
def widen(numbers):
    """Return stored numbers as int32; int16 holds the bits of an unsigned number."""
    wide = numbers.to(tl.int32)
    return wide & 0xFFFF if numbers.dtype == tl.int16 else wide


@triton.jit
def gather_kernel(
    indptr,
    genes,
    values,
    library_size,
    rows,
    unit,
    mean,
    sd,
    counts_out,
    inputs_out,
    library_out,
    n_genes,
    STANDARDISED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the counts, the inputs and the library size of one cell; see `gather`."""
    cell = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + cell)
    start, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    library = tl.load(library_size + row)
    tl.store(library_out + cell, library)
    for first in range(start, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        inside = place < end
        gene = widen(tl.load(genes + place, mask=inside, other=0))
        value = tl.load(values + place, mask=inside, other=0)
        x = widen(value).to(tl.float32)
        if STANDARDISED:
            logs = tl.log(1.0 + x * tl.load(unit) / library)
            logs -= tl.load(mean + gene, mask=inside, other=0.0)
            logs /= tl.load(sd + gene, mask=inside, other=1.0)
        else:
            logs = tl.log(1.0 + x)
        target = cell * n_genes + gene
        tl.store(counts_out + target, value, mask=inside)
        tl.store(inputs_out + target, logs.to(inputs_out.dtype.element_ty), mask=inside)


def gather(
    source: DeviceRows, rows: Tensor, standard: Standard | None = None, dtype=torch.bfloat16
) -> Gathered:
    """Return the counts of some cells as matrices, with the inputs of a network.

    Parameters
    ----------
    source
        All cells.
    rows
        The cells of the minibatch, (B,) int64.
    standard
        Divides by the size factor and standardises gene by gene, as DCA wants it.
    dtype
        Of the inputs.
    """
    found = empty(source, rows, standard, dtype)
    unit, mean, sd = standard or (source.library_size,) * 3  # not read
    gather_kernel[(len(rows),)](
        *source[:4],
        rows,
        unit,
        mean,
        sd,
        *found,
        source.n_genes,
        STANDARDISED=standard is not None,
        BLOCK=BLOCK,
    )
    return found
