"""Which differences between latents are real: paired over seeds, with intervals.

Seeds are repeats: each draws its own split, and all latents of a seed are scored on the same
cells, so a latent is compared with PCA within each seed. The test cells of different seeds
overlap in what the models learnt from; for label metrics the variance is therefore corrected after
Nadeau and Bengio 2003 (doi:10.1023/A:1024068626366).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclatent.benchmark.score import ALL_CELLS, METRICS

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "pca"
LEVEL = 0.05
"""Largest adjusted p-value of a difference that is called better or worse."""
COLUMNS = ["mean", "sd", "n_seeds", "difference", "lower", "upper", "p", "verdict", "note"]


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its 95 % interval and the p-value of no difference."""

    mean: float
    lower: float = np.nan
    upper: float = np.nan
    p: float = np.nan


def paired_difference(differences: np.ndarray, ratio: float = 0.0) -> Difference:
    """Return the mean of paired differences with its 95 % t interval.

    Parameters
    ----------
    differences : (J,) array
        One per seed.
    ratio : float
        Nadeau and Bengio's n_test / n_train, added to 1/J in the variance of the mean; 0 gives
        the plain paired t interval.

    Returns
    -------
    Difference
        The interval is nan with fewer than two seeds. Where all differences are equal it has no
        width, and p is 1 when they are 0, else 0.
    """
    from scipy import stats

    n_seeds = len(differences)
    mean = float(np.mean(differences))
    if n_seeds < 2:
        return Difference(mean)
    spread = np.std(differences, ddof=1)
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return Difference(mean, mean, mean, float(abs(mean) <= 1e-12))
    error = spread * np.sqrt(1 / n_seeds + ratio)
    half = stats.t.ppf(0.975, n_seeds - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, n_seeds - 1)
    return Difference(mean, mean - half, mean + half, float(p))


def decide(difference: Difference, equivalence: float) -> str:
    """Say what an interval shows.

    Returns
    -------
    str
        ``no difference`` when the interval lies within +-`equivalence` (two one-sided tests, here
        at 2.5 % each), ``better`` or ``worse`` when it does not and leaves out 0, else
        ``unclear``.
    """
    if np.isnan(difference.lower):
        return "unclear"
    if max(abs(difference.lower), abs(difference.upper)) <= equivalence:
        return "no difference"
    if difference.lower > 0:
        return "better"
    return "worse" if difference.upper < 0 else "unclear"


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values (M,); nan stays nan and does not count."""
    adjusted = np.full(len(p), np.nan)
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    stepped = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def split_ratio(rows: pd.DataFrame) -> float:
    """Return n_test / n_train of the score rows of one metric, mean over seeds.

    For label metrics n_train is the number of labelled cells outside the test labels; for scores
    on all cells nothing was left out, and the ratio is 0. With no label outside the test it is
    infinite: such scores cannot be called repeats.
    """
    if (rows["scope"] == ALL_CELLS).all():
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.mean(rows["n_cells"].to_numpy() / rows["n_rest"].to_numpy()))


def compare_metric(rows: pd.DataFrame, baseline: pd.DataFrame, equivalence: float) -> dict:
    """Return a row of the summary: one latent and metric against the baseline.

    Parameters
    ----------
    rows, baseline : DataFrame
        The score rows of the latent and of the baseline, one per seed.
    """
    name, values = rows["latent"].iloc[0], rows["value"].dropna()
    notes = sorted(set(rows["note"].fillna("")) - {""})
    row = dict.fromkeys(COLUMNS, np.nan)
    row |= {"mean": values.mean(), "sd": values.std(), "n_seeds": len(values)}
    row |= {"verdict": "n/a", "note": "; ".join(notes)}
    if not len(values) or rows["kind"].iloc[0] == "control":
        return row
    if name == BASELINE:
        return row | {"verdict": "baseline"}
    paired = rows.set_index("seed")["value"] - baseline.set_index("seed")["value"]
    paired = paired.dropna().sort_index().to_numpy()
    if not len(paired):
        return row | {"note": "; ".join([*notes, "the baseline has no value"])}
    ratio = split_ratio(rows)
    if len(paired) < 2 or np.isinf(ratio):
        why = "one seed" if len(paired) < 2 else "no labels to learn from"
        return row | {
            "difference": paired.mean(),
            "verdict": "unclear",
            "note": "; ".join([*notes, f"{why}: no interval"]),
        }
    found = paired_difference(paired, ratio)
    row |= {"difference": found.mean, "lower": found.lower, "upper": found.upper, "p": found.p}
    return row | {"verdict": decide(found, equivalence)}


def summarise(scores: pd.DataFrame, equivalence: float) -> pd.DataFrame:
    """Compare every latent with PCA, metric by metric.

    Parameters
    ----------
    scores : DataFrame
        Score rows of all latents, controls and seeds, with the column `kind`.
    equivalence : float
        An interval within +- this is called no difference.

    Returns
    -------
    DataFrame
        A row per latent and metric: `latent`, `kind`, `metric`, `mean`, `sd`, `n_seeds`,
        `difference`, `lower`, `upper`, `p`, `p_holm` (over the metrics of a latent), `verdict`,
        `note`. A difference with `p_holm` above 0.05 is unclear, even where its own interval
        leaves out 0: of seven metrics one may do so by chance.
    """
    import pandas as pd

    baseline = scores[scores["latent"] == BASELINE].groupby("metric")
    summary = []
    for (latent, kind), rows in scores.groupby(["latent", "kind"], sort=False):
        table = [
            {"latent": latent, "kind": kind, "metric": metric}
            | compare_metric(
                rows[rows["metric"] == metric], baseline.get_group(metric), equivalence
            )
            for metric in METRICS
        ]
        p_holm = holm(np.array([row["p"] for row in table], dtype=float))
        table = pd.DataFrame(table).assign(p_holm=p_holm)
        chance = table["verdict"].isin(["better", "worse"]) & (p_holm > LEVEL)
        table.loc[chance, "verdict"] = "unclear"
        summary.append(table)
    summary = pd.concat(summary, ignore_index=True)
    return summary[["latent", "kind", "metric", *COLUMNS[:7], "p_holm", *COLUMNS[7:]]]
