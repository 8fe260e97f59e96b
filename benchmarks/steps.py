"""See where the time of a training step goes.

    make bench-steps                          scVI, NB, minibatches of 128 and 256, 1 and 2 threads
    make bench-steps ARGS="--likelihood zinb --threads 1"

Trains on the simulated cells of `make bench-training`; validation is left out. The clock belongs to
the thread that leads a step: what another one does meanwhile is seen only where it is waited for.
Each part has the time of its own, without that of the parts it calls. It needs `scripts` on
PYTHONPATH.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from unittest import mock

import machine
import torch
import training_data
from parity_tables import table_head
from publish import TRIAL, noted, publish

from sclatent import job
from sclatent.kernels import between, counts, operators, team
from sclatent.kernels import likelihood as likelihoods
from sclatent.kernels.adam import Adam
from sclatent.models.scvi import build_scvi
from sclatent.training import loader, loop
from sclatent.training.order import slices
from sclatent.training.plan import Training

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "numba", "numpy")
REST, VALIDATION = "the model, autograd and the loop: PyTorch and Python", "validation"
STEPS = {REST: [(loop, "learn")], VALIDATION: [(loop, "evaluate")]}
"""All steps of a training, and what is no part of a step."""
PARTS = {
    "matrix products as wide as the genes": [(torch, "mm")],
    "log-likelihood and its gradient": [(likelihoods, "count_log_likelihood")],
    "around these: sums of biases and thetas, copies": [
        (counts.Step, "run"),
        (operators.Rows, "times"),
        (operators.Rows, "by_weight"),
        (operators.Kernels, "narrow"),
    ],
    "hidden layers, latent state and its sample": [
        *((between.Between, name) for name in ("there", "back")),
    ],
    "gathering the minibatch": [(loader.Cells, "take")],
    "spreading counts to dense rows": [(operators.Rows, "fill")],
    "norm of the gradients": [(Adam, "norms")],
    "Adam": [(Adam, "step")],
    "waiting for the other thread": [(team.Team, "finish")],
}
"""The parts of a step beside the rest, and the functions whose time is theirs."""


class Stopwatch:
    """Seconds of each part in one thread, without those of other parts that it calls.

    What the validation calls is a part of no step.
    """

    def __init__(self):
        self.seconds, self.running = Counter(), ["before and after"]
        self.thread, self.last = get_ident(), time.perf_counter()

    def turn(self) -> None:
        """Give the seconds since the last turn to the part that is running."""
        now = time.perf_counter()
        self.seconds[self.running[-1]] += now - self.last
        self.last = now

    def around(self, part: str, function: Callable) -> Callable:
        """Return a function whose seconds are those of a part."""

        def timed(*arguments, **options):
            if get_ident() != self.thread or self.running[-1] == VALIDATION:
                return function(*arguments, **options)
            self.turn()
            self.running.append(part)
            try:
                return function(*arguments, **options)
            finally:
                self.turn()
                self.running.pop()

        return timed

    @contextlib.contextmanager
    def watching(self, parts: dict) -> Iterator[None]:
        """Watch the functions of some parts, and start."""
        with contextlib.ExitStack() as stack:
            for part, functions in parts.items():
                for owner, name in functions:
                    timed = self.around(part, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, timed))
            self.last = time.perf_counter()
            yield
            self.turn()


def measure(data: tuple, likelihood: str, minibatch: int, threads: int, epochs: int) -> dict:
    """Return the milliseconds of a step, by part and, under ``all``, without the clock's own.

    Parameters
    ----------
    data
        The cells and the rows of the split.
    likelihood
        Of the counts.
    minibatch, threads
        Of the training.
    epochs
        That are timed, after one that is not.
    """
    _, rows = data
    n_steps = epochs * len(slices(len(rows.train), minibatch))
    train(data, likelihood, minibatch, threads, 1, {})
    whole = train(data, likelihood, minibatch, threads, epochs, STEPS)
    parts = train(data, likelihood, minibatch, threads, epochs, STEPS | PARTS)
    found = {part: 1e3 * parts[part] / n_steps for part in (*PARTS, REST)}
    return found | {"all": 1e3 * whole[REST] / n_steps}


def train(data, likelihood: str, minibatch: int, threads: int, epochs: int, parts: dict) -> Counter:
    """Train a new scVI, and return the seconds of its parts; the parameters are as for `measure`.

    Building the model, and what a training does once, count for no part.
    """
    cells, rows = data
    bounds = {"min_epochs": epochs, "max_epochs": epochs, "patience": epochs}
    plan = Training(**training_data.training("scvi", threads, minibatch=minibatch, **bounds))
    model = build_scvi(cells, rows.train, training_data.architecture(likelihood), 0)
    watch = Stopwatch()
    with contextlib.redirect_stdout(io.StringIO()), watch.watching(parts):
        loop.fit(model, cells, rows.train, rows.validation, plan, 0)
    return watch.seconds


def table(found: list[dict]) -> list[str]:
    """Return the Markdown lines: parts in rows, minibatches and threads in columns."""
    columns = [f"{run['minibatch']} cells, threads: {run['threads']}" for run in found]
    lines = table_head(["milliseconds of a step (share)", *columns])
    for part in (*PARTS, REST):
        values = [run["milliseconds"][part] for run in found]
        shares = [value / watched(run) for value, run in zip(values, found, strict=True)]
        cells = [f"{v:.2f} ({s:.0%})" for v, s in zip(values, shares, strict=True)]
        lines.append(f"| {' | '.join([part, *cells])} |")
    unwatched = [run["milliseconds"]["all"] for run in found]
    for name, values in (("all of these", map(watched, found)), ("without the clock", unwatched)):
        lines.append(f"| {' | '.join([name, *(f'{value:.2f}' for value in values)])} |")
    return lines


def watched(run: dict) -> float:
    """Return the milliseconds of all parts of a step together."""
    return sum(value for part, value in run["milliseconds"].items() if part != "all")


def main() -> None:
    """Watch the steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--likelihood", choices=["nb", "zinb", "poisson"], default="nb")
    parser.add_argument("--minibatches", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=8, help="that are timed")
    parser.add_argument("--quick", action="store_true", help="2,000 cells x 500 genes")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/steps")
    given = parser.parse_args()
    machine.warn_if_busy()
    job.set_threads(max(given.threads))
    conditions = machine.describe(PACKAGES, likelihood=given.likelihood)
    with tempfile.TemporaryDirectory() as folder:
        small = training_data.SMALL if given.quick else None
        training_data.prepare("simulated", ROOT, Path(folder), small)
        _, *data = training_data.read(Path(folder) / "simulated")
        found = [
            {
                "minibatch": size,
                "threads": threads,
                "milliseconds": measure(data, given.likelihood, size, threads, given.epochs),
            }
            for size in given.minibatches
            for threads in given.threads
        ]
    notes = [
        f"scVI, {given.likelihood}, {given.epochs} epochs; seconds of the thread that leads",
        machine.sentence(conditions),
    ]
    if given.quick:
        notes.append(TRIAL)
    content = {"conditions": conditions, "runs": found}
    publish(given.out, "steps", noted(table(found), notes), content)


if __name__ == "__main__":
    main()
