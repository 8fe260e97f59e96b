"""The held-out likelihoods of a dataset's count models, compared over seeds.

Two models of a seed are measured on the same cells, so they are compared within each seed. The
cells of different seeds overlap in what the models learnt from; the intervals are widened for that
as those of the label metrics are.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from sclatent import files
from sclatent.benchmark.statistics import paired_difference

if TYPE_CHECKING:
    import pandas as pd

NULL = "null"
"""The name of the null model among the latents."""


def read_likelihoods(paths, latents, seeds) -> pd.DataFrame:
    """Read the likelihoods of all seeds of the first latent, then of the second, and so on."""
    import pandas as pd

    names = product(latents, seeds)
    tables = [
        files.read_table(path).assign(latent=latent, seed=seed)
        for path, (latent, seed) in zip(paths, names, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare the likelihoods of models.

    Parameters
    ----------
    rows : DataFrame
        As `read_likelihoods` returns them.

    Returns
    -------
    DataFrame
        In nats per cell. A row per latent and for the null model, with an empty `against`: the mean
        over seeds, its 95 % interval (`lower`, `upper`), `elbo`, `n_seeds`, `n_cells`, `n_samples`,
        `ess_median`, `ess_minimum`, `kind`. And a row per pair of models, the null model among
        them: the mean paired difference of `latent` to `against` with its interval. A likelihood
        given an encoding of the same counts (`kind` ``encoded``) is in no pair.
    """
    import pandas as pd

    ratio = float((rows["n_cells"] / rows["n_train"]).mean())
    first = rows.drop_duplicates("seed").assign(latent=NULL, kind=NULL)
    first = first.assign(log_likelihood=first["null"], elbo=np.nan, n_samples=np.nan)
    first = first.assign(ess_median=np.nan, ess_minimum=np.nan)
    every = pd.concat([first, rows], ignore_index=True)
    table, before = [], {}
    for latent, part in every.groupby("latent", sort=False):
        values = part.set_index("seed")["log_likelihood"].sort_index()
        means = part[["elbo", "n_cells", "n_samples", "ess_median"]].mean().to_dict()
        kind, ess_minimum = part["kind"].iloc[0], part["ess_minimum"].min()
        about = {**means, "ess_minimum": ess_minimum, "kind": kind}
        table.append({**interval(latent, "", values, ratio), **about})
        if kind == "encoded":
            continue
        table += [interval(latent, other, values - before[other], ratio) for other in before]
        before[latent] = values
    return pd.DataFrame(table)


def interval(latent: str, against: str, values: pd.Series, ratio: float) -> dict:
    """Return the mean of one value per seed with its 95 % interval, as a row."""
    found = paired_difference(values.to_numpy(), ratio)
    row = {"latent": latent, "against": against, "n_seeds": len(values), "mean": found.mean}
    return {**row, "lower": found.lower, "upper": found.upper}
