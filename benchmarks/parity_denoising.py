"""DCA against no denoising, on molecules that nothing has seen.

Every molecule goes to one of two halves by the toss of a coin, so that both halves of a cell have
the same expected counts. What is learnt from the first half predicts the second
(Batson et al. 2019, doi:10.1101/786269).
"""

import contextlib
import io
from dataclasses import replace

import numpy as np
import parity_data
import torch
from scipy.sparse import csr_matrix
from scipy.special import gammaln

from sclatent.models.dca import Dca, build_dca
from sclatent.models.posterior import denoise
from sclatent.training.loader import Cells, gather_cells, split_rows
from sclatent.training.loop import fit
from sclatent.training.plan import Training

FLOOR = 1e-6
"""The lowest expected count: log-likelihoods of zeros are infinite without it."""


def denoise_halves(folder, seed: int, epochs: int) -> list[dict]:
    """Return how well DCA, the first half itself, and gene means predict the second half.

    Parameters
    ----------
    folder
        As `parity_data.prepare` fills it; its name is that of the dataset.
    seed
        Of the split, the halves and the training.
    epochs
        At most.

    Returns
    -------
    list of dict
        A row per value, as of `parity_arms.train`: `mse` of log-normalised values, per cell and
        gene; `poisson`, the negative log-likelihood of a Poisson distribution, nats per cell.
    """
    torch.set_num_threads(1)
    adata = parity_data.read(folder, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        everything, rows = gather_cells(adata), split_rows(adata)
        first, second = halves(everything.counts.to_csr(), seed)
        cells = Cells(first, everything.batch, everything.label, everything.batches)
        model = train_dca(cells, rows, seed, epochs)
        expected = denoise(
            *(model, cells, np.arange(len(cells.batch)), "observed", "own"), n_samples=0
        )
    share = np.asarray(first[rows.train].sum(0)).ravel() / first[rows.train].sum()
    guesses = {
        "dca": expected,
        "raw": first.toarray(),
        "means": cells.library_size[:, None] * share,
    }
    second, common = second.toarray(), {"dataset": folder.name, "model": "DCA", "seed": seed}
    return [
        common | {"metric": metric, "arm": arm, "value": float(loss(guess, second))}
        for arm, guess in guesses.items()
        for metric, loss in (("mse", mean_squared_error), ("poisson", poisson_loss))
    ]


def halves(counts: csr_matrix, seed: int) -> tuple[csr_matrix, csr_matrix]:
    """Return two matrices of counts that add up to the one given."""
    first = counts.copy()
    first.data = np.random.default_rng([seed, 5]).binomial(counts.data, 0.5).astype(np.int32)
    second = (counts - first).tocsr()
    for half in (first, second):
        half.eliminate_zeros()
        half.sort_indices()
    return first, second


def train_dca(cells: Cells, rows, seed: int, epochs: int):
    """Train DCA with the defaults of the workflow, for so many epochs at most."""
    config = parity_data.configured()
    section = {key: value for key, value in config["dca"].items() if key != "training"}
    plan = Training(**config["training"] | config["dca"]["training"])
    bounds = {name: min(getattr(plan, name), epochs) for name in ("min_epochs", "max_epochs")}
    model = build_dca(cells, rows.train, Dca(**section), seed)
    fit(model, cells, rows.train, rows.validation, replace(plan, **bounds), seed)
    return model


def mean_squared_error(expected: np.ndarray, counts: np.ndarray) -> float:
    """Return the mean squared difference of log1p values, all cells scaled to the median total."""
    median = np.median(counts.sum(1))
    logs = [
        np.log1p(median * values / np.maximum(values.sum(1, keepdims=True), FLOOR))
        for values in (expected, counts)
    ]
    return np.square(logs[0] - logs[1]).mean()


def poisson_loss(expected: np.ndarray, counts: np.ndarray) -> float:
    """Return -log p(counts) under Poisson distributions with these means, nats per cell."""
    rate = np.maximum(expected, FLOOR)
    return (rate - counts * np.log(rate) + gammaln(counts + 1.0)).sum(1).mean()
