"""How likely a count model finds cells that it did not learn from.

Measured on held-out cells: the same for all models of a seed, beside a null model that knows of a
cell only its library size and its batch.
"""

import numpy as np
import pandas as pd
import torch

from sclatent.models.dca import DCA
from sclatent.models.likelihoods import NegativeBinomial, dispersion_from_moments
from sclatent.models.posterior import likelihood
from sclatent.training.loader import Cells, Rows
from sclatent.training.order import slices


def score_model(
    model, cells: Cells, rows: Rows, n_samples: int, max_cells: int, seed: int
) -> pd.DataFrame:
    """Estimate ELBO and log-likelihood of held-out cells.

    Parameters
    ----------
    model
        A trained SCVI, SCANVI or DCA.
    cells
        As the model may see them.
    rows
        Of the training and held-out cells.
    n_samples
        Importance samples per cell.
    max_cells
        Held-out cells that are used at most, drawn with the seed.
    seed
        Of the repeat.

    Returns
    -------
    DataFrame
        One row: `kind` (``marginal``, or ``encoded`` for DCA, whose value is given an encoding of
        the same counts), `n_cells`, `n_train`, `n_samples`; means over cells in nats `elbo`,
        `log_likelihood`, `null`, and their standard errors `…_se`; `ess_median` and `ess_minimum`,
        the effective share of the samples.
    """
    chosen = choose(rows.heldout, max_cells, seed)
    found = likelihood(model, cells, chosen, n_samples, seed)
    null = null_likelihood(cells, rows.train, chosen)
    row = {
        "kind": "encoded" if isinstance(model, DCA) else "marginal",
        "n_cells": len(chosen),
        "n_train": len(rows.train),
        "n_samples": n_samples,
    }
    values = {"elbo": found.elbo, "log_likelihood": found.log_likelihood, "null": null}
    for name, value in values.items():
        value = value.astype(np.float64)
        row |= {name: value.mean(), f"{name}_se": value.std() / np.sqrt(max(len(value) - 1, 1))}
    share = found.ess / n_samples
    row |= {"ess_median": np.median(share), "ess_minimum": share.min()}
    print(
        f"{len(chosen):,} held-out cells: log-likelihood {row['log_likelihood']:.2f}, ELBO "
        f"{row['elbo']:.2f}, null model {row['null']:.2f} nats/cell; "
        f"effective samples {row['ess_median'] * n_samples:.1f} of {n_samples} in the median"
    )
    return pd.DataFrame([row])


def choose(heldout: np.ndarray, max_cells: int, seed: int) -> np.ndarray:
    """Return at most `max_cells` of the held-out rows, in order: the same for every model."""
    if len(heldout) <= max_cells:
        return heldout
    return np.sort(np.random.default_rng([seed, 5]).choice(heldout, max_cells, replace=False))


def null_likelihood(cells: Cells, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return log p(x) of some cells if only library size and batch made a difference, (n,) nats.

    A negative binomial per batch and gene: its share of the counts (half a count added) and its
    dispersion, by moments, come from the training cells of the batch.
    """
    log_p = np.empty(len(rows))
    for code in np.unique(cells.batch[rows]):
        known, here = train[cells.batch[train] == code], np.flatnonzero(cells.batch[rows] == code)
        moments, library_size = cells.counts.moments(known), cells.library_size[known]
        share = moments.total + 0.5
        # Where the decoder explains a part of the variance, theta starts at twice its estimate.
        log_theta = dispersion_from_moments(moments, library_size) - np.log(2)
        log_share = torch.from_numpy(np.log(share / share.sum())).float().to(cells.device)
        for part in slices(len(here), 256):
            minibatch = cells.take(rows[here[part]])
            log_rate = minibatch.library_size.log() + log_share
            null = NegativeBinomial(log_rate, log_theta.to(cells.device))
            log_p[here[part]] = null.log_prob(minibatch.entries).cpu().numpy()
    return log_p
