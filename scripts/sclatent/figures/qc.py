"""Draw the quality metrics of all cells and of those kept, with the thresholds, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from sclatent.figures.style import CUT_COLOUR, batch_colours, colours, plt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BEFORE = "#BDBDBD"
N_BINS = 60
VISIBLE = 0.015  # least width of a bin with one cell
PANELS = {
    "total_counts": ("Counts per cell", "counts", "log"),
    "n_genes_by_counts": ("Genes found per cell", "genes", "log"),
    "pct_counts_mt": ("Mitochondrial share", "% of counts", "percent"),
    "pct_counts_ribo": ("Ribosomal share", "% of counts", "percent"),
    "doublet_score": ("Doublet score of cells that passed", "probability", "linear"),
}
NOTHING = {
    "pct_counts_mt": "no mitochondrial genes\nin this dataset",
    "pct_counts_ribo": "no ribosomal genes\nin this dataset",
    "doublet_score": "doublets were not searched",
}
RULES = {
    "few_counts": "few counts",
    "many_counts": "many counts",
    "few_genes": "few genes",
    "many_genes": "many genes",
    "high_mt": "high mitochondrial",
    "high_ribo": "high ribosomal",
    "doublet": "doublet",
}


def plot_qc(metrics: pd.DataFrame, thresholds: pd.DataFrame) -> Figure:
    """Return a figure with one panel per metric and one for the cells removed.

    Parameters
    ----------
    metrics
        One row per cell: `batch`, the metrics, `kept`, `reason`.
    thresholds
        One row per batch and metric: `lower`, `upper` and their sources.
    """
    batches = list(batch_colours(metrics["batch"]).items())
    n_columns = 3 if len(batches) <= 6 else 2 if len(batches) <= 12 else 1
    shape = (-(-6 // n_columns), n_columns)
    width = max(3.8, 1.4 + 0.42 * len(batches))
    figure, axes = plt.subplots(*shape, figsize=(width * n_columns, 3.4 * shape[0]), squeeze=False)
    panels = axes.ravel()
    for panel, metric in zip(panels, PANELS, strict=False):
        bounds = thresholds[thresholds["metric"] == metric].set_index("batch")
        draw_metric(panel, metrics, metric, bounds, batches)
    draw_removed(panels[5], metrics, [name for name, _ in batches])
    for panel in panels:
        label_batches(panel, [name for name, _ in batches])
    keys = [
        Patch(color=BEFORE, label="before filtering (left half)"),
        Patch(color=batches[0][1], label="kept (right half, in the batch's colour)"),
        Line2D([], [], color=CUT_COLOUR, label="threshold from the batch's median and MAD"),
        Line2D([], [], color=CUT_COLOUR, linestyle=":", label="hard floor or ceiling"),
    ]
    figure.legend(handles=keys, loc="outside upper center", ncols=2 if n_columns < 3 else 4)
    return figure


def draw_metric(
    axes: Axes, metrics: pd.DataFrame, metric: str, bounds: pd.DataFrame, batches
) -> None:
    """Draw one metric: a histogram of all cells to the left, of those kept to the right."""
    name, unit, scale = PANELS[metric]
    axes.set_title(name)
    axes.set_ylabel(unit)
    values = metrics[metric].dropna().to_numpy(dtype=float)
    if not values.any() and metric in NOTHING:
        axes.text(0.5, 0.5, NOTHING[metric], ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    edges = bin_edges(values, scale)
    for position, (batch, colour) in enumerate(batches):
        mine = metrics[metrics["batch"] == batch]
        before = np.histogram(np.maximum(mine[metric].dropna(), edges[0]), edges)[0]
        after = np.histogram(mine.loc[mine["kept"].to_numpy(bool), metric].dropna(), edges)[0]
        for counts, side, fill in ((before, -1, BEFORE), (after, 1, colour)):
            width = np.maximum(0.42 * counts / max(before.max(), 1), VISIBLE * (counts > 0)) * side
            axes.stairs(position + width, edges, baseline=position, orientation="horizontal",
                        fill=True, color=fill)  # fmt: skip
        if batch in bounds.index:
            draw_bounds(axes, bounds.loc[batch], position)
    set_scale(axes, scale, edges)


def draw_bounds(axes: Axes, bounds: pd.Series, position: int) -> None:
    """Draw the lower and upper bound of one batch where it has them."""
    for side in ("lower", "upper"):
        source = bounds[f"{side}_source"]
        if source != "none":
            style = "-" if source == "mad" else ":"
            reach = [position - 0.45, position + 0.45]
            axes.plot(reach, [bounds[side]] * 2, color=CUT_COLOUR, linestyle=style)


def bin_edges(values: np.ndarray, scale: str) -> np.ndarray:
    """Return edges of equal width as the axis shows them."""
    if scale == "log":
        low, high = max(values.min(), 1), max(values.max(), 2)
        return np.geomspace(low, high * 1.0001, N_BINS + 1)
    if scale == "percent":
        return np.expm1(np.linspace(0, np.log1p(max(values.max(), 5) * 1.0001), N_BINS + 1))
    return np.linspace(0, values.max() * 1.0001, N_BINS // 2 + 1)


def set_scale(axes: Axes, scale: str, edges: np.ndarray) -> None:
    """Set the scale of the axis: percentages on log1p, the scale of their thresholds."""
    if scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if scale == "percent":
        axes.set_yscale("function", functions=(np.log1p, np.expm1))
        top = max(edges[-1], axes.get_ylim()[1])
        axes.set_yticks([tick for tick in (0, 1, 2, 5, 10, 20, 50, 100) if tick <= top])
    if scale != "log":
        axes.set_ylim(bottom=0)


def draw_removed(axes: Axes, metrics: pd.DataFrame, batches: list[str]) -> None:
    """Draw the share of each batch that each rule removed, one on top of the other."""
    axes.set_title("Removed, by the first rule that applies")
    axes.set_ylabel("% of cells")
    palette = colours(RULES.values())
    bottom = np.zeros(len(batches))
    for rule, name in RULES.items():
        removed = (metrics["reason"] == rule).groupby(metrics["batch"]).mean()
        height = 100 * removed.reindex(batches).to_numpy()
        if height.any():
            axes.bar(range(len(batches)), height, bottom=bottom, color=palette[name], label=name)
        bottom += height
    axes.set_ylim(0, max(1.0, 1.15 * bottom.max()))
    for position, height in enumerate(bottom):
        axes.annotate(f"{height:.1f}", (position, height), (0, 2), ha="center", fontsize=7,
                      textcoords="offset points")  # fmt: skip
    if bottom.any():
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def label_batches(axes: Axes, batches: list[str]) -> None:
    """Write the names of the batches under a panel, turned where they are long or many."""
    axes.set_xlim(-0.6, len(batches) - 0.4)
    turned = len(batches) * max(map(len, batches)) > 30
    look = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(range(len(batches)), [shorten(name) for name in batches], **look)


def shorten(name: str, n: int = 22) -> str:
    """Return a name that fits under a panel."""
    return name if len(name) <= n else f"{name[: n - 1]}…"
