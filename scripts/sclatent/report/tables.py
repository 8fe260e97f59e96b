"""The tables of the report, as text."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sclatent import files
from sclatent.data.store import UNKNOWN
from sclatent.figures import words

CLASSIFIER_SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "ece": "ECE",
    "brier": "Brier score",
    "nll": "NLL (nats)",
}
COSTS = {
    "wall_seconds": "wall time (s)",
    "cpu_seconds": "CPU time (s)",
    "peak_memory_mb": "peak memory (MB)",
}


@dataclass(frozen=True)
class Table:
    """A table of text: a head, and rows whose first cell is their head."""

    head: list[str]
    rows: list[list]


@dataclass(frozen=True)
class Cell:
    """A cell: a value, smaller lines below it, and whether it is the highest."""

    value: str
    details: tuple[str, ...] = ()
    highest: bool = False


def number(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, thousands separated; n/a when missing."""
    if not np.isfinite(value):
        return "n/a"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def spread(mean: float, sd: float, form=number) -> str:
    """Return ``mean ± sd``, without the sd when there is one seed."""
    if not np.isfinite(mean) or not np.isfinite(sd):
        return form(mean)
    return f"{form(mean)} ± {score(sd) if form is score else number(sd, 2)}"


def score(value: float) -> str:
    """Return a score with three decimals; n/a when missing."""
    return f"{value:.3f}" if np.isfinite(value) else "n/a"


def sizes_table(path) -> Table:
    """Return how many cells and types there are in each batch, and which types in it alone."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(files.verified(path)) as file:
        obs, n_genes = read_elem(file["obs"]), len(read_elem(file["var"]))
    obs = obs.assign(known=obs["cell_type"].astype(str) != UNKNOWN)
    rows = [size_row(name, part) for name, part in obs.groupby("batch", observed=True)]
    head = [f"batch ({n_genes:,} genes)", "cells", "cell types", "labelled cells"]
    if len(rows) == 1 or not obs["known"].any():
        return Table(head, rows + ([size_row("all", obs)] if len(rows) > 1 else []))
    alone = types_alone(obs[obs["known"]])
    rows = [[*row, ", ".join(sorted(alone.get(row[0], []))) or "none"] for row in rows]
    n_alone = sum(map(len, alone.values()))
    rows.append([*size_row("all", obs), f"{n_alone:,}"])
    return Table([*head, "confounded: types in this batch only"], rows)


def types_alone(obs: pd.DataFrame) -> dict[str, list[str]]:
    """Return the types that each batch has for itself; they cannot be told from its effect."""
    pairs = obs[["batch", "cell_type"]].astype(str).drop_duplicates()
    pairs = pairs[~pairs["cell_type"].duplicated(keep=False)]
    return pairs.groupby("batch")["cell_type"].agg(list).to_dict()


def size_row(name: str, obs: pd.DataFrame) -> list[str]:
    """Return the numbers of cells, of their types, and of those with a label."""
    n_types = obs.loc[obs["known"], "cell_type"].nunique()
    return [name, f"{len(obs):,}", f"{n_types:,}", f"{obs['known'].sum():,}"]


def comparison_table(summary: pd.DataFrame, comparison: pd.DataFrame) -> Table:
    """Return a row per metric and a column per latent and control."""
    summary = summary[~summary["metric"].isin(words.COSTS)]
    controls = set(summary.loc[summary["kind"] == "control", "latent"])
    latents = words.ordered(set(summary["latent"]) - controls, words.NAMES)
    controls = words.ordered(controls, words.NAMES)
    rows = []
    for metric in words.ordered(summary["metric"], words.METRICS):
        found = summary[summary["metric"] == metric].set_index("latent")
        top = found["mean"].reindex(latents).max()
        measured = found["note"].where(found["mean"].notna()).get(words.BASELINE)
        common = (measured,) if isinstance(measured, str) and measured else ()
        head = Cell(words.metric(metric).title, (scope(comparison, metric), *common))
        cells = [comparison_cell(found.loc[latent], top, common) for latent in latents]
        plain = [Cell(score(found.loc[control, "mean"])) for control in controls]
        rows.append([head, *cells, *plain])
    names = [f"control: {words.name(control)}" for control in controls]
    return Table(["metric", *map(words.name, latents), *names], rows)


def scope(comparison: pd.DataFrame, metric: str) -> str:
    """Say on which cells a metric was measured, and on how many."""
    rows = comparison[(comparison["metric"] == metric) & comparison["n_cells"].notna()]
    if not len(rows):
        return ""
    counts = sorted({int(rows["n_cells"].min()), int(rows["n_cells"].max())})
    return f"{rows['scope'].iloc[0]} ({' to '.join(f'{count:,}' for count in counts)} cells)"


def comparison_cell(row: pd.Series, top: float, said: tuple[str, ...]) -> Cell:
    """Return mean and sd, and below the difference to PCA with its interval and verdict.

    Notes that the row's head has `said` are not repeated.
    """
    note = row["note"] if isinstance(row["note"], str) else ""
    notes = (note,) if note and note not in said else ()
    if not np.isfinite(row["mean"]):
        return Cell("n/a", notes)
    value, highest = spread(row["mean"], row["sd"], score), bool(row["mean"] == top)
    if not np.isfinite(row["lower"]):
        return Cell(value, (row["verdict"], *notes), highest)
    interval = f"{row['difference']:+.3f} [{row['lower']:+.3f}, {row['upper']:+.3f}]"
    return Cell(value, (interval, f"{row['verdict']}, {p_value(row['p_holm'])}", *notes), highest)


def p_value(p: float) -> str:
    """Return a p-value as text."""
    if not np.isfinite(p):
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def costs_table(summary: pd.DataFrame) -> Table:
    """Return time and memory of every latent, and on which other latent it builds."""
    rows = summary[summary["metric"].isin(COSTS)]
    found = rows.set_index(["latent", "metric"])[["mean", "sd"]]
    below = rows.set_index("latent")["on_top_of"].to_dict()
    table = []
    for latent in words.ordered(rows["latent"], words.NAMES):
        after = below[latent] if isinstance(below[latent], str) else ""
        head = f"{words.name(latent)}, after {words.name(after)}" if after else words.name(latent)
        table.append([head, *(spread(*found.loc[(latent, cost)]) for cost in COSTS)])
    return Table(["one seed of", *COSTS.values()], table)


def removed_table(removed: pd.DataFrame) -> Table:
    """Return how many cells each rule removed, a row per batch."""
    removed = removed.assign(
        text=[f"{row.n_cells:,} ({row.share:.1%})" for row in removed.itertuples()]
    )
    rules = list(dict.fromkeys(removed["rule"]))
    wide = removed.pivot_table(index="batch", columns="rule", values="text", aggfunc="last")
    wide = wide.fillna("0")
    batches = list(dict.fromkeys(removed["batch"]))
    if len(batches) == 2 and wide.loc[batches[0]].equals(wide.loc[batches[1]]):
        batches = batches[:1]  # the only batch and "all" are the same
    head = [{"before": "cells before", "kept": "kept"}.get(rule, rule) for rule in rules]
    return Table(["batch", *head], [[batch, *wide.loc[batch, rules]] for batch in batches])


def likelihood_table(likelihood: pd.DataFrame) -> Table:
    """Return the held-out likelihood of every count model, of the null model, and last of DCA.

    Parameters
    ----------
    likelihood
        As `sclatent.benchmark.likelihood.compare` returns it.
    """
    likelihood = likelihood.assign(against=likelihood["against"].fillna(""))
    models = likelihood[likelihood["against"] == ""].set_index("latent")
    pairs = likelihood[likelihood["against"] != ""]
    rows = []
    for kind in ("marginal", "null", "encoded"):
        for latent in words.ordered(models.index[models["kind"] == kind], words.NAMES):
            about = ("not a marginal likelihood, not comparable",) if kind == "encoded" else ()
            row = models.loc[latent]
            cells = [nats(row["mean"], row), nats(row["elbo"]), differences(pairs, latent)]
            rows.append([Cell(words.name(latent), about), *cells, effective(row)])
    head = ["nats per cell", "log-likelihood", "ELBO", "paired difference", "effective samples"]
    return Table(head, rows)


def nats(value: float, row: pd.Series | None = None) -> Cell:
    """Return nats per cell, with the 95 % interval of the row where there is one."""
    if not np.isfinite(value):
        return Cell("n/a")
    if row is None or not np.isfinite(row["lower"]):
        return Cell(f"{value:,.1f}")
    return Cell(f"{value:,.1f}", (f"[{row['lower']:,.1f}, {row['upper']:,.1f}]",))


def differences(pairs: pd.DataFrame, latent: str) -> Cell:
    """Return the paired differences of a model to the null model and to those before it."""
    lines = []
    for row in pairs[pairs["latent"] == latent].itertuples():
        interval = f" [{row.lower:+,.2f}, {row.upper:+,.2f}]" if np.isfinite(row.lower) else ""
        lines.append(f"{row.mean:+,.2f}{interval} against {words.name(row.against)}")
    return Cell(lines[0], tuple(lines[1:])) if lines else Cell("n/a")


def effective(row: pd.Series) -> Cell:
    """Return how many of the importance samples count, in the median and the worst cell."""
    if row["kind"] != "marginal":
        return Cell("n/a")
    n_samples = row["n_samples"]
    worst = f"{row['ess_minimum'] * n_samples:.1f} in the worst cell"
    return Cell(f"{row['ess_median'] * n_samples:.1f} of {n_samples:.0f}", (worst,))


def labels_table(scores: pd.DataFrame) -> Table:
    """Return the scores of every classifier on test labels."""
    found = scores.groupby(["classifier", "metric"])["value"].agg(["mean", "std"])
    top = found["mean"].xs("accuracy", level="metric").max()
    rows = []
    for classifier in words.ordered(scores["classifier"], words.NAMES):
        cells = [
            Cell(
                spread(*found.loc[(classifier, metric)], score),
                highest=metric == "accuracy"
                and bool(found.loc[(classifier, metric), "mean"] == top),
            )
            for metric in CLASSIFIER_SCORES
        ]
        rows.append([Cell(words.name(classifier)), *cells])
    return Table(["classifier", *CLASSIFIER_SCORES.values()], rows)
