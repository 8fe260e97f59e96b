"""Training curves: the loss of every epoch and seed, the weight of the KL term, the kept epoch."""

import numpy as np
import pandas as pd

from sclatent import files
from sclatent.figures import words
from sclatent.figures.style import plt

TRAIN, VALIDATION, KEPT = "#E69F00", "#0072B2", "#000000"
SETTLED = 0.1  # share of the epochs that do not set the range of the loss axis


def read_curves(paths, latents, seeds) -> pd.DataFrame:
    """Read training curves given seed by seed for each latent; add columns latent and seed."""
    keys = [(latent, seed) for latent in latents for seed in seeds]
    tables = [
        files.read_table(path).assign(latent=latent, seed=seed)
        for (latent, seed), path in zip(keys, paths, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def plot_training(curves: pd.DataFrame):
    """Draw training and validation loss against the epoch, one panel per latent, three in a row.

    Parameters
    ----------
    curves
        Columns epoch, kl_weight, train_loss, validation_loss (nats per cell), best, latent, seed.

    Returns
    -------
    matplotlib.figure.Figure
    """
    latents = words.ordered(curves["latent"], words.NAMES)
    n_columns = min(len(latents), 3)
    n_rows = -(-len(latents) // n_columns)
    figure, axes = plt.subplots(
        *(2 * n_rows, n_columns),
        figsize=(max(6.5, 1 + 4.6 * n_columns), 4.6 * n_rows),
        height_ratios=[5, 1.2] * n_rows,
        squeeze=False,
    )
    panels = [(row, column) for row in range(0, 2 * n_rows, 2) for column in range(n_columns)]
    for (row, column), latent in zip(panels, latents, strict=False):
        upper, lower = axes[row, column], axes[row + 1, column]
        lower.sharex(upper)
        upper.tick_params(labelbottom=False)
        draw_losses(upper, curves[curves["latent"] == latent])
        draw_kl_weight(lower, curves[curves["latent"] == latent])
        n_seeds = curves.loc[curves["latent"] == latent, "seed"].nunique()
        upper.set_title(
            f"{words.name(latent)}, {n_seeds} seed{'s' if n_seeds > 1 else ''}", loc="left"
        )
    for row, column in panels[len(latents) :]:
        axes[row, column].set_axis_off()
        axes[row + 1, column].set_axis_off()
    for row in range(0, 2 * n_rows, 2):
        axes[row, 0].set_ylabel("loss (nats per cell)")
        axes[row + 1, 0].set_ylabel("KL weight")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def draw_losses(axis, curves: pd.DataFrame) -> None:
    """Draw the losses of one latent, a line per seed, and a dot where the weights were kept."""
    for number, (_, curve) in enumerate(curves.groupby("seed")):
        named = number == 0
        axis.plot(
            *(curve["epoch"], curve["train_loss"]),
            color=TRAIN,
            linestyle=(0, (4, 1.5)),
            label="training cells" if named else None,
        )
        axis.plot(
            *(curve["epoch"], curve["validation_loss"]),
            color=VALIDATION,
            label="validation cells" if named else None,
        )
        kept = curve[curve["best"].astype(bool)]
        axis.plot(
            *(kept["epoch"], kept["validation_loss"], "o"),
            color=KEPT,
            markersize=5,
            zorder=3,
            label="epoch whose weights were kept" if named else None,
        )
    lower, upper, cut = loss_range(curves)
    axis.set_ylim(lower, upper)
    if cut:
        axis.text(
            *(0.98, 1.01, "the first epochs lie above the panel"),
            transform=axis.transAxes,
            ha="right",
            va="bottom",
            fontsize=8,
            color="#555555",
        )
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.6)


def loss_range(curves: pd.DataFrame) -> tuple[float, float, bool]:
    """Return the range of the loss axis, and whether early epochs lie above it.

    The range holds nine tenths of the losses after the first tenth of the epochs, and every kept
    epoch: the huge losses of the first epochs would flatten all that follows.
    """
    settled = curves["epoch"] > curves["epoch"].min() + SETTLED * np.ptp(curves["epoch"])
    chosen = curves if not settled.any() else curves[settled]
    losses = chosen[["train_loss", "validation_loss"]].to_numpy(dtype=float)
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return 0.0, 1.0, False
    kept = curves.loc[curves["best"].astype(bool), "validation_loss"].dropna()
    lower, upper = losses.min(), max(np.quantile(losses, 0.9), *kept)
    margin = 0.08 * ((upper - lower) or abs(lower) or 1.0)
    lower, upper = lower - margin, upper + margin
    everything = curves[["train_loss", "validation_loss"]].to_numpy(dtype=float)
    return lower, upper, bool(np.nanmax(everything) > upper)


def draw_kl_weight(axis, curves: pd.DataFrame) -> None:
    """Draw the weight of the KL term; it is the same for every seed, and some have none."""
    axis.set(xlabel="epoch", ylim=(-0.08, max(1.08, 1.08 * curves["kl_weight"].max())))
    axis.set_yticks([0, 1])
    axis.xaxis.get_major_locator().set_params(integer=True)
    if not curves.get("validation_kl", curves["kl_weight"]).any():
        axis.text(0.5, 0.5, "no KL term", transform=axis.transAxes, ha="center", va="center")
        return
    for _, curve in curves.groupby("seed"):
        axis.plot(curve["epoch"], curve["kl_weight"], color="#555555")
