"""The table of the training benchmark: ours, scvi-tools, their ratio, and the target beside it."""

import statistics
from collections.abc import Iterator

from parity_tables import table_head

HEAD = ["", "dataset", "sclatent", "scvi-tools", "ratio", "target", "met"]
SPEEDS = {
    "nb": "cells/s, NB, minibatch 128",
    "zinb": "cells/s, ZINB, minibatch 128",
    "scanvi": "cells/s, scANVI, minibatch 128",
    "default": "cells/s, NB, default minibatch",
    "dca": "cells/s, DCA, default minibatch",
}
ENDS = {
    "elbo": "its defaults",
    "tuned": "its minibatch and learning rate tuned alike",
}
TARGETS = {"zinb": 10, "scanvi": 8, "default": 20, "elbo": 40, "tuned": 15}
ROOFLINE = 0.45
"""The least share of the roofline."""


def target_of(part: str, bf16: bool) -> float | None:
    """Return how many times faster a part should be here; None for no target."""
    return (12 if bf16 else 5) if part == "nb" else TARGETS.get(part)


def table(pieces: list[dict]) -> list[str]:
    """Return the Markdown lines of all that was measured, medians over the repeats.

    Parameters
    ----------
    pieces
        Each with `dataset`, `part`, `repeat`, `conditions` and `values`.
    """
    lines = table_head(HEAD)
    for part, name in SPEEDS.items():
        for dataset, values, bf16 in grouped(pieces, part):
            lines.append(speed_line(name, dataset, values, target_of(part, bf16)))
    for part, name in ENDS.items():
        for dataset, values, bf16 in grouped(pieces, part):
            lines += end_lines(name, dataset, values, target_of(part, bf16))
    for dataset, values, _ in grouped(pieces, "default"):
        lines.append(roofline_line(dataset, values))
    return lines


def grouped(pieces: list[dict], part: str) -> Iterator[tuple]:
    """Yield the name of each dataset, the values of a part's repeats, and whether with bf16."""
    for dataset in dict.fromkeys(piece["dataset"] for piece in pieces):
        found = [piece for piece in pieces if (piece["dataset"], piece["part"]) == (dataset, part)]
        if found:
            yield dataset, [piece["values"] for piece in found], found[0]["conditions"]["bf16"]


def median(values: list[dict], key: str) -> float | None:
    """Return the median of a value over the repeats, None where one of them has none."""
    found = [value.get(key) for value in values]
    return None if None in found else statistics.median(found)


def speed_line(name: str, dataset: str, values: list[dict], target: float | None) -> str:
    """Return the row of a speed."""
    ours, theirs = median(values, "ours"), median(values, "theirs")
    if "minibatch" in values[0]:
        name += f" ({values[0]['minibatch']})"
    ratio = ours / theirs if theirs else None
    return row(name, dataset, f"{ours:,.0f}", number(theirs, ",.0f"), ratio, target)


def end_lines(name: str, dataset: str, values: list[dict], target: float | None) -> list[str]:
    """Return the rows of a training up to the final -ELBO of scvi-tools."""
    ours, theirs = median(values, "ours"), median(values, "theirs")
    epochs = values[0]["their_epochs"]
    ratio = theirs / ours if ours else None
    title = f"seconds to its final held-out -ELBO, {name} ({epochs} epochs)"
    reached = number(ours, ".2f", "not reached")
    lines = [row(title, dataset, reached, f"{theirs:.1f}", ratio, target)]
    if ours is None:
        lines[0] = lines[0].removesuffix("|  |") + "| no |"
    for key, title, sign in (("nelbo", "-ELBO", -1), ("log_likelihood", "log-likelihood", 1)):
        sides = [median(values, f"{side}_{key}") for side in ("ours", "theirs")]
        better = sign * (sides[0] - sides[1])
        cells = [f"final held-out {title}, nats per cell, {name}", dataset]
        cells += [f"{side:.2f}" for side in sides] + [f"{sides[0] - sides[1]:+.2f}", "not worse"]
        lines.append(f"| {' | '.join([*cells, 'yes' if better >= 0 else 'no'])} |")
    return lines


def roofline_line(dataset: str, values: list[dict]) -> str:
    """Return the row of the share of the matrix products' own speed."""
    shares = [value["ours"] * value["flops_per_cell"] / value["gemm"] for value in values]
    share, numbers = statistics.median(shares), values[0]["gemm_numbers"]
    name = (
        f"share of the {numbers} GEMM roofline ({median(values, 'gemm') / 1e9:,.0f} GFLOP/s, "
        f"{values[0]['flops_per_cell'] / 1e6:.2f} MFLOP a cell), default minibatch"
    )
    met = "yes" if share >= ROOFLINE else "no"
    return f"| {name} | {dataset} | {share:.0%} |  |  | ≥ {ROOFLINE:.0%} | {met} |"


def row(name, dataset, ours: str, theirs: str, ratio: float | None, target: float | None) -> str:
    """Return a row with a ratio; what is not there stays empty."""
    wanted = f"≥ {target:g} ×" if target else ""
    met = "" if not target or ratio is None else "yes" if ratio >= target else "no"
    return f"| {' | '.join([name, dataset, ours, theirs, number(ratio, '.1f', ''), wanted, met])} |"


def number(value: float | None, form: str, missing: str = "") -> str:
    """Return a number in words, or what stands for none."""
    return missing if value is None else format(value, form)
