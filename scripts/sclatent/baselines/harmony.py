"""Harmony on PCA (Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0), by harmonypy."""

import logging
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Harmony:
    """Settings, as in the config's section `harmony`."""

    theta: float = 2.0
    max_iterations: int = 10


def correct_harmony(latent: np.ndarray, batch, settings: Harmony, seed: int) -> np.ndarray:
    """Move cells so that the batches share their clusters.

    Parameters
    ----------
    latent
        PCA of the cells, (n_cells, n_components).
    batch
        Batch of each cell, (n_cells,).
    settings
        Diversity penalty and rounds.
    seed
        Seeds the clustering.

    Returns
    -------
    numpy.ndarray
        (n_cells, n_components) float32. With a single batch the input is returned.
    """
    import pandas as pd
    from harmonypy import run_harmony

    batch = pd.Series(np.asarray(batch, dtype=str), name="batch")
    if batch.nunique() < 2:
        print("one batch only: nothing to correct, Harmony's latent is PCA's")
        return latent
    logging.getLogger("harmonypy").setLevel(logging.WARNING)
    result = run_harmony(
        latent.astype(np.float64),
        batch.to_frame(),
        ["batch"],
        theta=settings.theta,
        max_iter_harmony=settings.max_iterations,
        random_state=seed,
        ncores=1,
        verbose=False,
    )
    corrected = np.asarray(result.Z_corr, dtype=np.float32)
    corrected = corrected if corrected.shape == latent.shape else corrected.T
    moved = (
        np.linalg.norm(corrected - latent, axis=1).mean() / np.linalg.norm(latent, axis=1).mean()
    )
    print(f"moved the cells of {batch.nunique()} batches by {moved:.0%} of their mean norm")
    return corrected
