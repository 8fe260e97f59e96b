"""A planted dataset: four types in three batches, one type in one batch only."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def planted():
    """Return latent (600, 8), labels and batches; types lie apart, batches are shifted a little."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=600)
    batches = rng.integers(3, size=600)
    labels[(batches == 2) & (rng.random(600) < 0.2)] = 3
    latent = 4 * np.eye(4, 8)[labels] + rng.normal(size=(600, 8))
    latent[:, 7] += batches
    return latent, labels, batches
