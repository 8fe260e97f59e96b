"""The house style of all figures: palettes safe for colour-blind readers, and matplotlib settings.

Import `plt` from here, so that every figure has the style and no display is needed.

The first eight colours of `TYPES` are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color).
Each later one was chosen to lie as far as possible, in CIELAB, from all before it and from the grey
of Unknown, for normal vision and for simulated protanopia and deuteranopia (Machado et al. 2009,
doi:10.1109/TVCG.2009.113). `BATCHES` begins with Paul Tol's "muted" scheme, so that a batch is not
taken for a cell type.
"""

import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from sclatent import files
from sclatent.data.store import UNKNOWN

UNKNOWN_COLOUR = "#D9D9D9"
CUT_COLOUR = "#D55E00"  # thresholds, and what they remove
TYPES = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"),
    *("#66290A", "#0033A3", "#B8D685", "#700A66", "#0085FF", "#D62947", "#85143D", "#7A5270"),
    *("#EB8F52", "#FF99A3", "#33E0F5", "#FFCC66", "#33A3FF", "#A3330A", "#144799", "#47703D"),
    *("#665CCC", "#EB667A", "#A385C2", "#709929", "#D6ADCC", "#C2A370", "#A370D6"),
)
BATCHES = (
    *("#332288", "#DDCC77", "#117733", "#88CCEE", "#CC6677", "#44AA99", "#882255", "#999933"),
    *("#AA4499", *TYPES),
)
LATENTS = {
    "pca": "#666666",
    "harmony": "#E69F00",
    "scvi": "#0072B2",
    "scanvi": "#009E73",
    "dca": "#CC79A7",
    "shuffled": "#BDBDBD",
    "labels": "#000000",
}
OTHER_LATENTS = ("#56B4E9", "#D55E00", "#700A66", "#66290A", "#0033A3")
TITLES = {"pca": "PCA", "harmony": "Harmony", "scvi": "scVI", "scanvi": "scANVI", "dca": "DCA"}

plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "savefig.facecolor": "white",
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "image.cmap": "cividis",
        "lines.linewidth": 1.4,
        "svg.hashsalt": "sclatent",
    }
)


def colours(categories) -> dict[str, str]:
    """Return a colour per cell type or cluster: the same mapping for the same set of names.

    Give all categories of a dataset, also those a panel does not show, so that one legend serves
    all its figures. "Unknown" is light grey. After 31 names the colours repeat.
    """
    return assign(categories, TYPES)


def batch_colours(categories) -> dict[str, str]:
    """Return a colour per batch; otherwise like `colours`."""
    return assign(categories, BATCHES)


def latent_colours(latents) -> dict[str, str]:
    """Return a colour per latent: a fixed one for those the project knows."""
    return LATENTS | assign([name for name in latents if name not in LATENTS], OTHER_LATENTS)


def title(latent: str) -> str:
    """Return a latent's name as it is written in text."""
    return TITLES.get(latent, latent)


def assign(categories, palette) -> dict[str, str]:
    """Return {category: colour} in natural order, Unknown last."""
    names = sorted({str(name) for name in categories} - {UNKNOWN}, key=natural)
    found = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return found | ({UNKNOWN: UNKNOWN_COLOUR} if UNKNOWN in set(map(str, categories)) else {})


def natural(name: str) -> list:
    """Return a key that sorts batch2 before batch10."""
    parts = re.split(r"(\d+)", str(name))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def write_figure(path, figure) -> None:
    """Write a figure as PNG at 150 dots per inch, without dates, and close it."""
    with files.safely(path) as partial:
        figure.savefig(partial, dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
