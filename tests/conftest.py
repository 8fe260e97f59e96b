"""What all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# the first example of a test may wait for a compiler
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SCLATENT_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real counts, or a skip that says why."""
    if not (SHARED / "SHA256SUMS").is_file():
        pytest.skip(f"the folder of real counts is not here: {SHARED} (set SCLATENT_DATA)")
    return SHARED


@pytest.fixture(scope="session")
def planted():
    """Return latent (600, 8), labels and batches; types lie apart, batches are shifted a little.

    There are four types in three batches, one type in one batch only.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=600)
    batches = rng.integers(3, size=600)
    labels[(batches == 2) & (rng.random(600) < 0.2)] = 3
    latent = 4 * np.eye(4, 8)[labels] + rng.normal(size=(600, 8))
    latent[:, 7] += batches
    return latent, labels, batches
