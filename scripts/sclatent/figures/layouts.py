"""Scatter plots of two-dimensional layouts, for viewing only."""

from dataclasses import dataclass

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd

from sclatent import files
from sclatent.data.store import UNKNOWN, positions
from sclatent.figures import style, words
from sclatent.figures.style import plt

WIDTH = 11.0  # inches of a figure, legend included
LETTER = 0.083  # inches of a letter of the legend
LINES = 32  # most entries of a legend
NOTE = "{} is for viewing; no score or cluster is computed from it."


@dataclass(frozen=True)
class Layout:
    """Layouts of one latent from several seeds.

    Attributes
    ----------
    method
        ``umap`` or ``tsne``.
    points
        Coordinates (B, 2) by layout seed.
    trustworthiness
        Share of neighbours that can be trusted, by layout seed, in 0-1.
    """

    method: str
    points: dict[int, np.ndarray]
    trustworthiness: dict[int, float]

    @property
    def first(self) -> np.ndarray:
        """The layout of the first seed."""
        return self.points[min(self.points)]


def read_layout(path, cells, method: str) -> Layout:
    """Read layouts in the order of the cells."""
    import anndata

    layout = anndata.read_h5ad(files.verified(path))
    rows = positions(layout.obs_names, cells, "the cells", path, "cell")
    trust = layout.uns.get("trustworthiness", {})
    keys = {int(key.removeprefix("seed")): key for key in layout.obsm}
    return Layout(
        method,
        {seed: np.asarray(layout.obsm[keys[seed]])[rows] for seed in sorted(keys)},
        {seed: float(trust[key]) for seed, key in keys.items() if key in trust},
    )


def read_layouts(paths, latents, cells, method: str) -> dict[str, Layout]:
    """Read the layouts of several latents."""
    pairs = zip(latents, paths, strict=True)
    return {latent: read_layout(path, cells, method) for latent, path in pairs}


def read_main_clusters(paths, latents, cells, resolution: float) -> dict[str, np.ndarray]:
    """Read the clusters of several latents at one resolution, in the order of the cells."""
    found = {}
    for latent, path in zip(latents, paths, strict=True):
        table = files.read_table(path)
        rows = positions(table["cell"], cells, "the cells", path, "cell")
        found[latent] = table[resolutions(table)[float(resolution)]].to_numpy()[rows]
    return found


def resolutions(clusters: pd.DataFrame) -> dict[float, str]:
    """Return the column of each resolution of a table of clusters."""
    return {float(name.removeprefix("leiden_")): name for name in clusters.columns.drop("cell")}


def plot_layouts(layout: Layout, obs: pd.DataFrame, latent: str, max_points: int):
    """Draw the layouts of one latent side by side, by cell type and by batch.

    Parameters
    ----------
    layout
        Several seeds of one method.
    obs
        Columns cell_type and batch of the B cells.
    latent
        Its name, for the title.
    max_points
        Most cells that are drawn; the same random ones in every panel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = coloured_rows(obs)
    figure, axes = panels(len(rows), len(layout.points), rows)
    order = drawing_order(len(obs), max_points)
    for column, seed in enumerate(layout.points):
        for row, (_, values, palette) in enumerate(rows):
            scatter(axes[row, column], layout.points[seed], values, palette, order)
        axes[0, column].set_title(f"layout seed {seed}{trust(layout, seed)}")
    finish(
        figure, axes, rows, layout.method, f"{words.name(layout.method)} of {words.name(latent)}"
    )
    add_drawn_note(figure, len(obs), len(order))
    return figure


def plot_latents(
    layouts: dict[str, Layout], clusters: dict[str, np.ndarray], obs: pd.DataFrame, max_points: int
):
    """Draw the first layout of every latent by cell type, batch and cluster.

    Parameters
    ----------
    layouts
        By latent; the columns of the figure.
    clusters
        Cluster number (B,) of each cell, by latent.
    obs, max_points
        As in `plot_layouts`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = coloured_rows(obs)
    figure, axes = panels(len(rows) + 1, len(layouts), rows)
    order = drawing_order(len(obs), max_points)
    for column, (latent, layout) in enumerate(layouts.items()):
        for row, (_, values, palette) in enumerate(rows):
            scatter(axes[row, column], layout.first, values, palette, order)
        draw_clusters(axes[-1, column], layout.first, clusters[latent], order)
        seed = min(layout.points)
        axes[0, column].set_title(f"{words.name(latent)}{trust(layout, seed)}")
    method = next(iter(layouts.values())).method
    axes[-1, 0].set_ylabel("Leiden clusters", fontsize=10)
    finish(figure, axes, rows, method, None)
    add_drawn_note(figure, len(obs), len(order))
    return figure


def coloured_rows(obs: pd.DataFrame):
    """Return (title, values, {value: colour}) of each row: cell type and batch.

    A row of one colour says nothing: types are left out where none is known, batches where there
    is one.
    """
    types, batches = obs["cell_type"].astype(str), obs["batch"].astype(str)
    rows = [
        ("cell type", types.to_numpy(), style.colours(types)),
        ("batch", batches.to_numpy(), style.batch_colours(batches)),
    ]
    known, mixed = (types != UNKNOWN).any(), batches.nunique() > 1
    return [row for row, shown in zip(rows, (known, mixed or not known), strict=True) if shown]


def panels(n_rows: int, n_columns: int, rows):
    """Return a figure of square panels about `WIDTH` wide, with room for the legends of rows."""
    longest = max(len(shortened(name)) for _, _, palette in rows for name in palette)
    legend = 0.5 + LETTER * (longest + 8)
    side = np.clip((WIDTH - legend) / n_columns, 1.7, 3.2)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(side * n_columns + legend, (side + 0.15) * n_rows + 1.0),
        squeeze=False,
    )
    return figure, axes


def drawing_order(n_cells: int, max_points: int) -> np.ndarray:
    """Return the cells to draw in a random order, so that no type or batch covers the others."""
    return np.random.default_rng([0, n_cells]).permutation(n_cells)[:max_points]


def scatter(axis, points: np.ndarray, values, palette: dict, order: np.ndarray) -> None:
    """Draw cells as rasterised dots, the unlabelled ones below the others."""
    values = np.asarray(values)[order]
    order = order[np.argsort(values != UNKNOWN, kind="stable")]
    values = values[np.argsort(values != UNKNOWN, kind="stable")]
    axis.scatter(
        *points[order].T,
        s=float(np.clip(9000 / len(order), 1.0, 12.0)),
        c=[palette[value] for value in values],
        alpha=float(np.clip(1.05 - np.log10(max(len(order), 10)) / 10, 0.55, 0.9)),
        linewidths=0,
        rasterized=True,
    )
    axis.set(xticks=[], yticks=[], box_aspect=1)
    axis.spines[:].set_visible(True)
    axis.spines[:].set(color="#BBBBBB", linewidth=0.6)


def draw_clusters(axis, points: np.ndarray, clusters: np.ndarray, order: np.ndarray) -> None:
    """Draw cells by cluster, with each cluster's number at the cell nearest to its median."""
    names = np.asarray(clusters).astype(str)
    scatter(axis, points, names, style.colours(names), order)
    outline = [effects.withStroke(linewidth=2.2, foreground="white")]
    for cluster in dict.fromkeys(names):
        members = points[names == cluster]
        distances = np.linalg.norm(members - np.median(members, axis=0), axis=1)
        at = members[distances.argmin()]
        axis.text(
            *(*at, cluster),
            ha="center",
            va="center",
            fontsize=7.5,
            fontweight="bold",
            path_effects=outline,
        )
    axis.set_xlabel(f"{len(set(names))} clusters", fontsize=9)


def trust(layout: Layout, seed: int) -> str:
    """Return the trustworthiness of a seed as a second line of a title, when it is known."""
    if seed not in layout.trustworthiness:
        return ""
    return f"\ntrustworthiness {layout.trustworthiness[seed]:.3f}"


def finish(figure, axes, rows, method: str, title: str | None) -> None:
    """Name the rows, put one legend beside each, and the note below."""
    for axis, (name, values, palette) in zip(axes[:, 0], rows, strict=False):
        axis.set_ylabel(name, fontsize=10)
        add_legend(axes[list(axes[:, 0]).index(axis), -1], values, palette)
    if title:
        figure.suptitle(title, fontsize=12)
    figure.supxlabel(NOTE.format(words.name(method)), fontsize=9, color="#444444")


def add_legend(axis, values, palette: dict) -> None:
    """Put a legend with the number of cells right of a panel."""
    names, counts = np.unique(np.asarray(values), return_counts=True)
    counts = dict(zip(names, counts, strict=True))
    shown = [name for name in palette if name in counts][:LINES]
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", markersize=6, color=palette[name])
        for name in shown
    ]
    labels = [f"{shortened(name)} ({counts[name]:,})" for name in shown]
    more = len(counts) - len(shown)
    axis.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        title=f"and {more} more" if more else None,
        fontsize=8.5 if len(shown) <= 14 else 6.5,
        labelspacing=0.35 if len(shown) <= 14 else 0.15,
        handletextpad=0.3,
    )


def shortened(name: str, length: int = 30) -> str:
    """Return a name of at most `length` characters, cut in the middle."""
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"


def add_drawn_note(figure, n_cells: int, n_drawn: int) -> None:
    """Say in the footer how many cells are drawn when it is not all of them."""
    if n_drawn < n_cells:
        footer = figure.get_supxlabel()
        figure.supxlabel(
            f"{footer} {n_drawn:,} of {n_cells:,} cells are drawn.", fontsize=9, color="#444444"
        )
