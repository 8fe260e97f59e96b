"""What is measured: each part runs both sides once and returns the numbers of one repeat."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import training_data
from training_arms import Problem, Trained, train_ours, train_theirs

from sclatent.models.dca import Dca
from sclatent.models.posterior import likelihood
from sclatent.training import loop
from sclatent.training.plan import Training

THEIR_MINIBATCH, THEIR_RATE = 128, 1e-3
"""The defaults of scvi-tools."""
TUNED_MINIBATCH, TUNED_RATE = 256, 4e-3
"""What makes scvi-tools fastest without making it worse."""


class Effort(NamedTuple):
    """How long the parts take."""

    our_epochs: int = 8  # that are timed, after a first one
    their_epochs: int = 3
    epochs: int | None = None  # of scvi-tools up to its final ELBO; None for its own choice
    n_samples: int = 100  # of the importance sampling
    gemm_seconds: float = 1.0  # for each product of the roofline


class Part(NamedTuple):
    """A part of the benchmark, and what it is given beside the problem."""

    run: Callable
    options: dict


def measure(name: str, given: Problem, effort: Effort, ours_first: bool) -> dict:
    """Return the numbers of one repeat of a part."""
    part = PARTS[name]
    return part.run(given, effort, ours_first, **part.options)


def interleave(ours: Callable, theirs: Callable, ours_first: bool) -> tuple[Trained, Trained]:
    """Train both sides, ours first or last, and return ours first."""
    if ours_first:
        return ours(), theirs()
    other = theirs()
    return ours(), other


def speed(given: Problem, effort: Effort, ours_first: bool, kind: str, likelihood: str) -> dict:
    """Return the cells per second of both sides with minibatches of 128."""
    settings = training_data.architecture(likelihood)
    plan = fixed_epochs(effort, kind, given.threads, minibatch=THEIR_MINIBATCH)
    ours, theirs = interleave(
        lambda: train_ours(given, kind, settings, plan),
        lambda: their_speed(given, effort, kind, likelihood),
        ours_first,
    )
    return {"ours": cells_per_second(given, ours), "theirs": cells_per_second(given, theirs)}


def default_speed(given: Problem, effort: Effort, ours_first: bool) -> dict:
    """Return the cells per second with each side's own default minibatch, NB, and the limit.

    `gemm` is what this CPU makes of the products of the gene-sized layers alone, in FLOP/s, and
    `flops_per_cell` what they need.
    """
    settings = training_data.architecture("nb")
    plan = fixed_epochs(effort, "scvi", given.threads)
    ours, theirs = interleave(
        lambda: train_ours(given, "scvi", settings, plan),
        lambda: their_speed(given, effort, "scvi", "nb"),
        ours_first,
    )
    shape = (plan["minibatch"], given.cells.sizes.genes, settings.n_hidden)
    gemm = roofline(*shape, given.threads, effort.gemm_seconds)
    return {
        "ours": cells_per_second(given, ours),
        "theirs": cells_per_second(given, theirs),
        "minibatch": plan["minibatch"],
        **gemm,
    }


def dca_speed(given: Problem, effort: Effort, ours_first: bool) -> dict:
    """Return the cells per second of DCA; no published DCA can be installed beside it."""
    plan = fixed_epochs(effort, "dca", given.threads)
    settings = Dca(**training_data.section("dca"))
    trained = train_ours(given, "dca", settings, plan)
    return {"ours": cells_per_second(given, trained), "minibatch": plan["minibatch"]}


def until_elbo(
    given: Problem, effort: Effort, ours_first: bool, minibatch: int, rate: float
) -> dict:
    """Return the seconds to the final -ELBO of scvi-tools, and how good both models are.

    The -ELBO to reach is that of the validation cells, by the function that the loop here validates
    with, and a KL weight of 1. Both models are judged on the held-out cells.
    """
    settings = training_data.architecture("zinb")
    plan = training_data.training("scvi", given.threads)
    ours, theirs = interleave(
        lambda: train_ours(given, "scvi", settings, plan),
        lambda: train_theirs(given, "scvi", "zinb", minibatch, effort.epochs, rate),
        ours_first,
    )
    validation = (given.cells, given.rows.validation, plan["minibatch"], given.seed)
    with Training(**plan).computing():
        goal = float(loop.evaluate(theirs.model, *validation).total)
    reached = (ours.losses <= goal).nonzero()[0]
    found = {
        "ours": float(ours.marks[reached[0]]) if len(reached) else None,
        "ours_in_all": ours.seconds,
        "theirs": theirs.seconds,
        "their_epochs": len(theirs.marks),
        "goal": goal,
        "ours_best": float(ours.losses.min()),
    }
    for side, trained in (("ours", ours), ("theirs", theirs)):
        judged = (given.cells, given.rows.heldout, effort.n_samples, given.seed)
        values = likelihood(trained.model, *judged)
        found[f"{side}_nelbo"] = float(-values.elbo.mean())
        found[f"{side}_log_likelihood"] = float(values.log_likelihood.mean())
    return found


def fixed_epochs(effort: Effort, name: str, threads: int, **changed) -> dict:
    """Return our plan with as many epochs as are timed, and a first one."""
    epochs = 1 + effort.our_epochs
    bounds = {"min_epochs": epochs, "max_epochs": epochs, "patience": epochs}
    return training_data.training(name, threads, **bounds, **changed)


def their_speed(given: Problem, effort: Effort, kind: str, likelihood: str) -> Trained:
    """Train scvi-tools for as many epochs as are timed, and a first one."""
    epochs = 1 + effort.their_epochs
    return train_theirs(given, kind, likelihood, THEIR_MINIBATCH, epochs, THEIR_RATE)


def cells_per_second(given: Problem, trained: Trained) -> float:
    """Return the training cells over the seconds of an epoch."""
    return len(given.rows.train) / trained.epoch_seconds


def roofline(n_cells: int, n_genes: int, n_hidden: int, threads: int, seconds: float) -> dict:
    """Measure the matrix products of the gene-sized layers of scVI alone.

    Each such layer has three: forward, gradient of the weights, gradient of the input, of which
    the first layer needs none. Numbers are bf16 where the CPU has instructions for it.

    Parameters
    ----------
    n_cells, n_genes, n_hidden
        Of a minibatch and of the layers.
    threads
        Of torch.
    seconds
        For each product.
    """
    from machine import has_bf16

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if has_bf16() else torch.float32
    counts, weight = torch.randn(n_cells, n_genes, dtype=dtype), torch.randn(n_genes, n_hidden)
    weight, hidden = weight.to(dtype), torch.randn(n_cells, n_hidden, dtype=dtype)
    encoder = [(counts, weight), (counts.T, hidden)]
    decoder = [(hidden, weight.T), (counts.T, hidden), (counts, weight)]
    products = encoder + decoder
    flops = 2.0 * n_cells * n_genes * n_hidden * len(products)
    taken = sum(timed_product(*product, seconds) for product in products)
    return {
        "gemm": flops / taken,
        "gemm_numbers": str(dtype).removeprefix("torch."),
        "flops_per_cell": flops / n_cells,
    }


def timed_product(first: torch.Tensor, second: torch.Tensor, seconds: float) -> float:
    """Return the seconds of a matrix product, over as many as fit into a time."""
    out = first @ second
    began, n_times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            torch.mm(first, second, out=out)
        n_times += 10
    return (time.perf_counter() - began) / n_times


PARTS = {
    "nb": Part(speed, {"kind": "scvi", "likelihood": "nb"}),
    "zinb": Part(speed, {"kind": "scvi", "likelihood": "zinb"}),
    "scanvi": Part(speed, {"kind": "scanvi", "likelihood": "nb"}),
    "dca": Part(dca_speed, {}),
    "default": Part(default_speed, {}),
    "elbo": Part(until_elbo, {"minibatch": THEIR_MINIBATCH, "rate": THEIR_RATE}),
    "tuned": Part(until_elbo, {"minibatch": TUNED_MINIBATCH, "rate": TUNED_RATE}),
}
"""The parts by name, in the order of the table."""
