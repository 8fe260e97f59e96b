"""Small counts for the models."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclatent.training.loader import Cells


@pytest.fixture
def cells() -> Cells:
    """120 cells of two planted types in two batches, 40 genes; every other label is hidden."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 120)
    batch = random.integers(0, 2, 120)
    rate = np.ones((120, 40))
    rate[kind == 1, :10] *= 8
    rate[batch == 1, 20:30] *= 4
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    label = np.where(np.arange(120) % 2, kind, -1)
    return Cells(counts, batch, label, ["a", "b"], classes=["first", "second"])
