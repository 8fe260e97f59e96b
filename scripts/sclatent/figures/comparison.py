"""The comparison of all latents: one panel per metric, and what each latent cost."""

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sclatent.figures import style, words
from sclatent.figures.style import plt

COSTS = {"wall_seconds": "wall time (s), log scale", "peak_memory_mb": "peak memory (MB)"}
COLUMNS = 3


def plot_comparison(comparison: pd.DataFrame, summary: pd.DataFrame):
    """Draw every metric and the cost of every latent.

    Parameters
    ----------
    comparison
        Columns latent, seed, metric, value, kind, and note where a value is missing.
    summary
        Columns latent, metric, mean, lower, upper: the 95 % interval of the difference to PCA.

    Returns
    -------
    matplotlib.figure.Figure
    """
    latents = words.ordered(comparison.loc[comparison["kind"] != "control", "latent"], words.NAMES)
    metrics = words.ordered(set(comparison["metric"]) - set(words.COSTS), words.METRICS)
    costs = [cost for cost in COSTS if (comparison["metric"] == cost).any()]
    n_rows = -(-(len(metrics) + len(costs)) // COLUMNS)
    figure, axes = plt.subplots(
        n_rows,
        COLUMNS,
        figsize=(11, 0.8 + n_rows * (1.0 + 0.27 * len(latents))),
        sharey=True,
        squeeze=False,
    )
    panels = iter(axes.flat)
    for metric in metrics:
        draw_metric(next(panels), metric, comparison, summary, latents)
    for cost in costs:
        draw_cost(next(panels), cost, comparison, latents)
    for axis in panels:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(latents)), [words.name(latent) for latent in latents])
    axes[0, 0].set_ylim(len(latents) - 0.45, -0.85)
    add_legend(figure)
    return figure


def draw_metric(axis, metric: str, comparison, summary, latents) -> None:
    """Draw seeds, means and intervals of one metric, with PCA and the controls as lines."""
    rows = comparison[comparison["metric"] == metric]
    means = rows.groupby("latent")["value"].mean()
    baseline = means.get(words.BASELINE, np.nan)
    palette = style.latent_colours(latents)
    for place, latent in enumerate(latents):
        values = rows.loc[rows["latent"] == latent, "value"].dropna().to_numpy()
        interval = summary[(summary["latent"] == latent) & (summary["metric"] == metric)]
        bounds = baseline + interval[["lower", "upper"]].to_numpy(dtype=float).ravel()
        draw_seeds(axis, place, values, palette[latent], bounds)
        if not len(values):
            axis.text(0.5, place, reason(rows[rows["latent"] == latent]), **NOT_AVAILABLE)
    axis.set_xlabel("score, higher is better")
    limits = sorted(set(rows.loc[rows["value"].notna(), "note"].dropna()) - {""})
    task = words.metric(metric).task
    add_titles(axis, words.metric(metric).title, f"{task} ({limits[0]})" if limits else task)
    if axis.lines:
        widen(axis)
        draw_references(axis, baseline, means)
    else:
        axis.set(xlim=(0, 1), xticks=[])


def add_titles(axis, title: str, subtitle: str) -> None:
    """Give a panel a title and a smaller line below it."""
    axis.set_title(f"{title}\n", fontsize=10.5)
    axis.text(0.5, 1.03, subtitle, transform=axis.transAxes, ha="center", fontsize=8.5)
    axis.grid(axis="x", color="#EEEEEE", linewidth=0.6)


def draw_references(axis, baseline: float, means: pd.Series) -> None:
    """Draw PCA's mean and the controls; a control outside the panel is named at its edge."""
    if np.isfinite(baseline):
        axis.axvline(baseline, color=style.LATENTS["pca"], linewidth=0.8, zorder=1)
    lower, upper = axis.get_xlim()
    outside = {"left": [], "right": []}
    for control, line in (("shuffled", ":"), ("labels", "--")):
        value = means.get(control, np.nan)
        if lower <= value <= upper:
            axis.axvline(value, color="#888888", linestyle=line, linewidth=1.2, zorder=1)
        elif np.isfinite(value):
            text = f"{words.name(control)} {round(value, 2) + 0.0:.2f}"
            outside["left" if value < lower else "right"].append(text)
    for side, texts in outside.items():
        if texts:
            text = ", ".join(texts)
            text = f"◂ {text}" if side == "left" else f"{text} ▸"
            at = (lower if side == "left" else upper, 0.985, text)
            axis.text(*at, transform=axis.get_xaxis_transform(), ha=side, va="top", **EDGE)


EDGE = {"fontsize": 7.5, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6}}
NOT_AVAILABLE = {"ha": "center", "va": "center", "fontsize": 8.5, "style": "italic"}


def draw_seeds(axis, place: int, values, colour: str, bounds=()) -> None:
    """Draw a dot per seed, a bar at their mean, and an interval below."""
    if not len(values):
        return
    axis.plot(values, np.full(len(values), place), "o", color=colour, markersize=5, alpha=0.75)
    mean = values.mean()
    axis.plot([mean, mean], [place - 0.28, place + 0.28], color="black", linewidth=1.6)
    if len(bounds) == 2 and np.isfinite(bounds).all():
        interval = {"color": colour, "marker": "|", "markersize": 6, "solid_capstyle": "butt"}
        axis.plot(bounds, [place + 0.34] * 2, linewidth=2.5, **interval)


def reason(rows: pd.DataFrame) -> str:
    """Say why a metric has no value."""
    notes = rows["note"].dropna().astype(str) if "note" in rows else pd.Series(dtype=str)
    notes = [note for note in notes.unique() if note]
    return f"n/a: {notes[0]}" if notes else "n/a"


def widen(axis) -> None:
    """Give a panel a range of at least 0.1, so that noise does not look like a difference."""
    lower, upper = axis.get_xlim()
    missing = max(0.0, 0.1 - (upper - lower)) / 2
    # No score leaves 0-1 by much; only an interval does, and its end is not worth the room.
    axis.set_xlim(max(lower - missing, -0.08), min(upper + missing, 1.03))
    axis.xaxis.set_major_locator(MaxNLocator(5))


def draw_cost(axis, cost: str, comparison, latents) -> None:
    """Draw the cost of every seed."""
    rows = comparison[comparison["metric"] == cost]
    palette = style.latent_colours(latents)
    for place, latent in enumerate(latents):
        values = rows.loc[rows["latent"] == latent, "value"].dropna().to_numpy()
        draw_seeds(axis, place, values, palette[latent])
    title = "time" if cost == "wall_seconds" else "memory"
    pairs = rows.loc[rows["on_top_of"].fillna("") != "", ["latent", "on_top_of"]].drop_duplicates()
    added = [f"{words.name(one)} after {words.name(other)}" for one, other in pairs.to_numpy()]
    add_titles(axis, title, "; ".join(["of one seed", *added]))
    axis.set_xlabel(f"{COSTS[cost]}, lower is better")
    if cost == "wall_seconds":
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_xlim(0, 1.08 * rows["value"].max())


def add_legend(figure) -> None:
    """Explain the marks below all panels."""
    grey = "#555555"
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", markersize=5, color=grey),
        plt.Line2D([], [], marker="|", linestyle="", markersize=11, color="black", mew=1.6),
        plt.Line2D([], [], color=grey, linewidth=2.5, marker="|", markersize=6),
        plt.Line2D([], [], color=style.LATENTS["pca"], linewidth=0.8),
        plt.Line2D([], [], color="#888888", linestyle=":"),
        plt.Line2D([], [], color="#888888", linestyle="--"),
    ]
    labels = [
        "one seed",
        "mean",
        "PCA's mean + 95 % interval of the difference to PCA",
        "PCA's mean",
        "control: shuffled cells",
        "control: the true labels",
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
