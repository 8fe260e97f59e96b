"""Counts on the device in compressed rows, and what a minibatch takes from them.

Letters for shapes: n cells, N non-zero counts, B cells of a minibatch, G genes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sclatent.data.compact import CompactCounts


class DeviceRows(NamedTuple):
    """The counts of all cells. 16-bit numbers are held by their bits in int16."""

    indptr: Tensor  # (n + 1,) int64
    genes: Tensor  # (N,) int16 or int32
    values: Tensor  # (N,) int16 or int32
    library_size: Tensor  # (n,) float32, at least 1
    n_genes: int


class Standard(NamedTuple):
    """How DCA standardises its input: (log1p(x u / l) - mean) / sd, with library size l."""

    unit: Tensor  # (), the library size u whose size factor is 1
    mean: Tensor  # (G,)
    sd: Tensor  # (G,)


class Gathered(NamedTuple):
    """The counts of a minibatch as matrices."""

    counts: Tensor  # (B, G) int16 bits or int32
    inputs: Tensor  # (B, G) bfloat16 or float32: log1p of the counts, or standardised
    library_size: Tensor  # (B,) float32


def to_device(counts: CompactCounts, device: str) -> DeviceRows:
    """Copy counts to a device.

    Parameters
    ----------
    counts
        (n, G).
    device
        ``cpu`` or ``cuda``.
    """
    indptr, genes, values, n_genes = counts.block
    library_size = np.maximum(counts.library_size, 1).astype(np.float32)
    parts = (indptr, bits(genes), bits(values), library_size)
    return DeviceRows(*(torch.from_numpy(part).to(device) for part in parts), n_genes)


def bits(numbers: np.ndarray) -> np.ndarray:
    """Return 16-bit numbers as int16 of the same bits, since torch does little with uint16."""
    return numbers.view(np.int16) if numbers.dtype == np.uint16 else numbers


def widen(numbers: Tensor) -> Tensor:
    """Return stored numbers as int32."""
    return numbers.int() & 0xFFFF if numbers.dtype == torch.int16 else numbers


def empty(source: DeviceRows, rows: Tensor, standard: Standard | None, dtype) -> Gathered:
    """Return what `gather` gives for cells without counts, to be filled, and no library sizes."""
    shape = (len(rows), source.n_genes)
    counts = torch.zeros(shape, dtype=source.values.dtype, device=rows.device)
    library_size = torch.empty(len(rows), device=rows.device)
    if standard is None:
        return Gathered(counts, torch.zeros(shape, dtype=dtype, device=rows.device), library_size)
    start = (-standard.mean / standard.sd).to(dtype)
    return Gathered(counts, start.expand(shape).contiguous(), library_size)
