"""The tables of the comparison in Markdown, and the verdicts."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sclatent import files
from sclatent.benchmark.statistics import paired_difference

START, END = "<!-- parity: written by make parity -->", "<!-- parity: end -->"
METRICS = {
    "nelbo": ("-ELBO of held-out cells, nats per cell ↓", -1, 2),
    "log_likelihood": ("log-likelihood of held-out cells, nats per cell ↑", 1, 2),
    "ess": ("effective sample size of that, median", 0, 1),
    "accuracy": ("accuracy on test labels ↑", 1, 3),
    "knn_accuracy": ("kNN label accuracy across batches ↑", 1, 3),
    "ilisi": ("iLISI ↑", 1, 3),
    "seconds": ("seconds of training ↓", -1, 1),
}
"""What each metric is called, its good direction (0: none), and its decimals."""
DENOISING = {
    "mse": "mean squared error of log-normalised values ↓",
    "poisson": "Poisson loss, nats per cell ↓",
}
GUESSES = {"raw": "raw half", "means": "gene mean × library", "dca": "DCA"}


def report(rows: list[dict], conditions: list[str]) -> str:
    """Return all tables and the conditions under which they were measured.

    Parameters
    ----------
    rows
        Of `parity_arms.train` and `parity_denoising.denoise_halves`.
    conditions
        One sentence each.
    """
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        here = [row for row in rows if row["dataset"] == dataset]
        for model in ("scVI", "scANVI"):
            lines += [f"### {model}, {dataset}", "", *comparison(here, model), ""]
        lines += [f"### DCA, {dataset}", "", *denoising(here), ""]
    return "\n".join([*lines, *(f"- {condition}" for condition in conditions), ""])


def comparison(rows: list[dict], model: str) -> list[str]:
    """Return the table of a model: metrics in rows, scvi-tools and our two arms in columns."""
    head = ["", "scvi-tools", "`compat`", "difference", "verdict"]
    lines = table_head([*head, "own defaults", "difference", "verdict"])
    for metric, (name, sign, digits) in METRICS.items():
        values = {
            arm: seeds_of(rows, model, metric, arm) for arm in ("scvi-tools", "compat", "defaults")
        }
        if not len(values["scvi-tools"]):
            continue
        line = [name, spread(values["scvi-tools"], digits)]
        for arm in ("compat", "defaults"):
            line += [spread(values[arm], digits)]
            line += verdict(values[arm] - values["scvi-tools"], sign, digits)
        lines.append(f"| {' | '.join(line)} |")
    return lines


def table_head(names: list[str]) -> list[str]:
    """Return the first two lines of a table."""
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def seeds_of(rows: list[dict], model: str, metric: str, arm: str) -> np.ndarray:
    """Return the values of an arm in the order of the seeds."""
    wanted = {"model": model, "metric": metric, "arm": arm}
    found = {row["seed"]: row["value"] for row in rows if wanted.items() <= row.items()}
    return np.array([found[seed] for seed in sorted(found)])


def spread(values: np.ndarray, digits: int) -> str:
    """Return the mean, and the standard deviation over the seeds where there are several."""
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def verdict(differences: np.ndarray, sign: int, digits: int) -> list[str]:
    """Return the mean paired difference with its 95 % t interval, and what it shows.

    Parameters
    ----------
    differences
        Ours minus theirs, one per seed.
    sign
        1 where more is better, -1 where less is, 0 where neither.
    digits
        Decimals.

    Returns
    -------
    list of str
        The difference; and `better` or `worse` where the interval leaves out 0, else `equal`, with
        the number of seeds in which ours is at least as good.
    """
    found = paired_difference(differences)
    text = f"{found.mean:+.{digits}f}"
    if not sign:
        return [text, ""]
    ahead = f"{(sign * differences >= 0).sum()} of {len(differences)}"
    if np.isnan(found.lower):
        return [text, f"one seed ({ahead})"]
    text += f" [{found.lower:+.{digits}f}, {found.upper:+.{digits}f}]"
    low, high = sorted((sign * found.lower, sign * found.upper))
    word = "better" if low > 0 else "worse" if high < 0 else "equal"
    return [text, f"**{word}** ({ahead})" if word == "worse" else f"{word} ({ahead})"]


def denoising(rows: list[dict]) -> list[str]:
    """Return the table of DCA: losses in rows, what predicts in columns, the lowest in bold."""
    lines = table_head(["", *GUESSES.values(), "best"])
    for metric, name in DENOISING.items():
        values = {guess: seeds_of(rows, "DCA", metric, guess)[0] for guess in GUESSES}
        best = min(values, key=values.get)
        numbers = [f"**{v:.4g}**" if g == best else f"{v:.4g}" for g, v in values.items()]
        lines.append(f"| {' | '.join([name, *numbers, GUESSES[best]])} |")
    return lines


def conditions(epochs: dict, seeds: list, n_jobs: int, small) -> list[str]:
    """Return under which conditions a run is made, one sentence each."""
    packages = ("scvi-tools", "torch", "lightning", "numpy", "scipy", "anndata")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    trained = ", ".join(f"{dataset} {n}" for dataset, n in epochs.items())
    lines = [
        f"epochs of scVI: {trained}; of scANVI a third of that, from 2 to 10",
        f"seeds: {', '.join(map(str, seeds))}",
        f"one thread per training, {n_jobs} trainings at a time; load of the machine at the start "
        f"{os.getloadavg()[0]:.1f}",
        f"{processor()}, Python {platform.python_version()}, {versions}",
    ]
    if small:
        lines.append(f"a trial on {small.n_cells} cells: these numbers mean nothing")
    return lines


def processor() -> str:
    """Return the name of the processor and the number of its cores here."""
    known = Path("/proc/cpuinfo")
    names = known.read_text().splitlines() if known.is_file() else []
    named = [line.split(":")[1].strip() for line in names if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {named[0] if named else platform.machine()}"


def rewrite(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a Markdown file."""
    before, rest = path.read_text().split(START)
    files.write_text(path, f"{before}{START}\n\n{text}\n{END}{rest.split(END)[1]}")
