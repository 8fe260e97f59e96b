"""The comparison of a dataset: all scores, what each latent cost, and the summary."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from sclatent import files
from sclatent.benchmark.statistics import BASELINE, summarise
from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    import pandas as pd

COSTS = ("wall_seconds", "cpu_seconds", "peak_memory_mb")


def read_scores(latent_files, control_files) -> pd.DataFrame:
    """Read the scores of latents and of controls as one table, with the column `kind`."""
    import pandas as pd

    tables = [files.read_table(path).assign(kind="latent") for path in latent_files]
    tables += [files.read_table(path).assign(kind="control") for path in control_files]
    scores = pd.concat(tables, ignore_index=True)
    scores["note"] = scores["note"].fillna("").astype(str)
    return scores


def read_costs(cost_files, latents, seeds, on_top_of) -> pd.DataFrame:
    """Read what each latent cost.

    Parameters
    ----------
    cost_files : list of paths
        All seeds of the first latent, then of the second, and so on.
    latents, seeds : list
        In that order.
    on_top_of : dict of str to str
        Latents that start from another: their cost comes on top of the other's.

    Returns
    -------
    DataFrame
        A row per latent, seed and cost: `latent`, `seed`, `metric`, `value`, `kind`, `on_top_of`
        (the latent whose cost is to be added, or empty).
    """
    import pandas as pd

    rows = []
    for path, (latent, seed) in zip(cost_files, product(latents, seeds), strict=True):
        cost = files.read_json(path)
        rows += [
            {"latent": latent, "seed": seed, "metric": name, "value": float(cost[name])}
            for name in COSTS
        ]
    table = pd.DataFrame(rows)
    return table.assign(kind="latent", on_top_of=table["latent"].map(on_top_of).fillna(""))


def gather(scores: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return all rows: `latent`, `kind`, `seed`, `metric`, `value`, then what describes them."""
    import pandas as pd

    table = pd.concat([scores, costs], ignore_index=True)
    table["on_top_of"] = table["latent"].map(parents(costs)).fillna("")
    first = ["latent", "kind", "seed", "metric", "value"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def summarise_all(scores: pd.DataFrame, costs: pd.DataFrame, equivalence: float) -> pd.DataFrame:
    """Compare every latent with PCA, and add the mean costs (verdict ``n/a``).

    Returns
    -------
    DataFrame
        As `summarise`, with the column `on_top_of`.

    Raises
    ------
    InputError
        When PCA, the baseline, is not among the latents.
    """
    import pandas as pd

    if BASELINE not in set(scores["latent"]):
        what = f"there is no '{BASELINE}' to compare the latents with"
        raise InputError(problem("E107", "config latents", what, f"add {BASELINE} to latents"))
    summary = summarise(scores, equivalence)
    grouped = costs.groupby(["latent", "kind", "metric"], sort=False)["value"]
    means = grouped.agg(mean="mean", sd="std", n_seeds="count").reset_index()
    table = pd.concat([summary, means.assign(verdict="n/a", note="")], ignore_index=True)
    for row in summary[summary["verdict"].isin(["better", "worse"])].itertuples():
        interval = f"{row.difference:+.3f} [{row.lower:+.3f}, {row.upper:+.3f}]"
        print(f"{row.latent} {row.verdict} than {BASELINE} at {row.metric}: {interval}")
    return table.assign(on_top_of=table["latent"].map(parents(costs)).fillna(""))


def parents(costs: pd.DataFrame) -> dict[str, str]:
    """Return {latent: the latent it starts from} as the table of costs has it."""
    return dict(zip(costs["latent"], costs["on_top_of"], strict=True))
