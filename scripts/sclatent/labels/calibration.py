"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): probabilities that can be believed.

Classifiers are surer than they are right. One number, the temperature, is fitted on calibration
cells, whose labels trained nothing and judge nothing; it changes probabilities but no prediction.
"""

from __future__ import annotations

import numpy as np

from sclatent.labels.tables import Predictions

FLOOR = 1e-6
"""Least probability before the logarithm; votes of neighbours are often exactly 0."""
MIN_CELLS = 30
"""With fewer calibration cells the probabilities stay as they are."""
BOUNDS = (0.05, 20.0)
"""Least and largest temperature."""


def cool(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(log p / temperature) of each row.

    Parameters
    ----------
    probabilities
        (n_cells, n_classes), rows sum to 1.
    temperature
        Above 1 the rows become flatter, below 1 sharper.
    """
    logits = np.log(np.maximum(probabilities, FLOOR)) / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature with the least negative log-likelihood.

    Parameters
    ----------
    probabilities
        (n_cells, n_classes).
    truth
        Column of each cell's true class, (n_cells,).
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))

    def cost(log_temperature: float) -> float:
        chosen = cool(probabilities, np.exp(log_temperature))[rows, truth]
        return -np.log(np.maximum(chosen, 1e-300)).mean()

    found = minimize_scalar(cost, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(found.x))


def calibrate(predictions: Predictions, labels: np.ndarray, split: np.ndarray) -> Predictions:
    """Calibrate a classifier's probabilities on the calibration cells.

    Parameters
    ----------
    predictions
        Of n cells.
    labels
        Observed label of each cell, (n,).
    split
        ``train``, ``calibration``, ``test`` or ``unknown`` of each cell, (n,).

    Returns
    -------
    Predictions
        The same labels with new probabilities; unchanged where fewer than 30 cells can calibrate.
    """
    code = {name: number for number, name in enumerate(predictions.classes)}
    known = np.array([code.get(name, -1) for name in labels])
    usable = (split == "calibration") & (known >= 0)
    if usable.sum() < MIN_CELLS:
        print(f"{usable.sum()} calibration cells are too few: probabilities stay as they are")
        return predictions
    temperature = fit_temperature(predictions.probabilities[usable], known[usable])
    print(f"temperature {temperature:.2f} from {usable.sum():,} calibration cells")
    probabilities = cool(predictions.probabilities, temperature)
    return Predictions(predictions.cells, predictions.classes, probabilities)
