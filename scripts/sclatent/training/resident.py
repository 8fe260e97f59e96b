"""All cells of a training on the device, and minibatches that never leave it.

Letters for shapes: n cells, B cells of a minibatch, G genes, S batches, C columns of one-hot
covariates other than the batch, M numeric covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sclatent.kernels.cuda.operators import gather
from sclatent.kernels.cuda.rows import Gathered, Standard, to_device, widen
from sclatent.training.loader import Cells


@dataclass(frozen=True)
class DeviceMinibatch:
    """The cells of one step, with the fields of `training.loader.Minibatch`."""

    gathered: Gathered
    batch: Tensor  # (B, S) float32, one-hot
    categorical: Tensor  # (B, C) float32
    continuous: Tensor  # (B, M) float32
    label: Tensor  # (B,) int64, -1 where the model may not see it
    rows: Tensor  # (B,) int64
    labelled: DeviceMinibatch | None = None

    def __len__(self) -> int:
        """Return the number of cells, B."""
        return len(self.rows)

    @property
    def library_size(self) -> Tensor:
        """Total counts of each cell, (B, 1) float32."""
        return self.gathered.library_size[:, None]

    @property
    def inputs(self) -> Tensor:
        """What the first layer sees of the counts, (B, G)."""
        return self.gathered.inputs

    @cached_property
    def counts(self) -> Tensor:
        """The counts, (B, G) float32."""
        return widen(self.gathered.counts).float()

    @property
    def entries(self) -> Tensor:
        """What a fused likelihood is evaluated at, (B, G): its shape does not depend on counts."""
        return self.gathered.counts

    def replace(self, **fields) -> DeviceMinibatch:
        """Return the same cells with other values in some fields."""
        return replace(self, **fields)


class ResidentCells:
    """What a model may see of a dataset, on the device.

    Parameters
    ----------
    cells
        The same on the host.
    standard
        How the input is standardised; log1p of the counts where it is None.
    dtype
        Of the input: bfloat16 where the device has such products.
    """

    def __init__(self, cells: Cells, standard: Standard | None = None, dtype=torch.float32):
        self.device, self.generators = cells.device, cells.generators
        self.standard, self.dtype = standard, dtype
        self.source = to_device(cells.counts, cells.device)
        self.batches = torch.eye(len(cells.batches), device=cells.device)  # one-hot by code
        parts = (cells.batch, cells.label, cells.covariates.one_hot, cells.covariates.values)
        types = (np.int64, np.int64, np.float32, np.float32)
        self.batch, self.label, self.categorical, self.continuous = (
            torch.from_numpy(np.asarray(part, dtype=kind)).to(cells.device)
            for part, kind in zip(parts, types, strict=True)
        )

    def take(self, rows: Tensor | np.ndarray) -> DeviceMinibatch:
        """Return the cells `rows` as a minibatch."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        return DeviceMinibatch(
            gather(self.source, rows, self.standard, self.dtype),
            self.batches[self.batch[rows]],
            self.categorical[rows],
            self.continuous[rows],
            self.label[rows],
            rows,
        )
