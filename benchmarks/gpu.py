"""Cells per second of a training on a GPU, beside scvi-tools on the same card and the card's limit.

    PYTHONPATH=scripts .venv-peers/bin/python benchmarks/gpu.py --json gpu.json

Both sides train scVI on the same simulated counts, 20,000 cells of 2000 genes in four batches. They
take turns; numbers are medians. scvi-tools is left out where it is not installed. Where there is no
GPU, this says so and measures nothing.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from importlib.util import find_spec

import torch

from sclatent.data.simulate import Simulation, simulate
from sclatent.kernels.cuda.device import DeviceKernels
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.captured import N_WARM_UP, DeviceTraining
from sclatent.training.ends import heavy_ends
from sclatent.training.loader import Cells, gather_cells
from sclatent.training.plan import Schedule, Training
from sclatent.training.resident import ResidentCells

COUNTS = Simulation(n_cells=20_000, n_genes=2000, n_batches=4, library_size=290)
MODEL = {"n_latent": 10, "n_hidden": 128, "n_layers": 1}
LIKELIHOODS, MINIBATCHES = ("nb", "zinb"), (128, 1024, 4096)
PRODUCTS = {"nb": 5, "zinb": 8}
"""Products of a minibatch with all genes: forward, by weight, and by hidden state where needed."""
N_EPOCHS, N_REPEATS = 10, 3


def train_ours(cells: Cells, likelihood: str, minibatch: int, n_epochs: int = N_EPOCHS) -> float:
    """Return cells per second of epochs after those in which the steps are captured."""
    dtype = torch.bfloat16
    n_cells = cells.counts.shape[0]
    rows = range(n_cells)
    model = build_scvi(cells, list(rows), Scvi(likelihood=likelihood, **MODEL), seed=0)
    plan = Training(minibatch=minibatch, learning_rate=1e-3)
    n_first = N_WARM_UP + 1
    schedule = Schedule(n_first + n_epochs, -(-n_cells // minibatch), plan)
    resident, optimiser = ResidentCells(cells, dtype=dtype), plan.optimise(model)
    training = DeviceTraining(model, resident, rows, plan, optimiser)
    with heavy_ends(model, DeviceKernels(dtype)):
        for _ in range(n_first):
            training.run_epoch(schedule, 0)
        start = time.perf_counter()
        broken = [training.run_epoch(schedule, seed).broken for seed in range(n_epochs)]
        seconds = time.perf_counter() - start
    if broken.count(None) < n_epochs:
        raise RuntimeError("a step was not finite: the numbers would mean nothing")
    return n_cells * n_epochs / seconds


def train_theirs(adata, likelihood: str, minibatch: int, n_epochs: int = 3) -> float:
    """Return cells per second of scvi-tools, after a first epoch."""
    import scvi
    from lightning.pytorch.callbacks import Callback

    marks = []

    class Ticking(Callback):
        """Note the end of each epoch."""

        def on_train_epoch_end(self, trainer, module) -> None:
            torch.cuda.synchronize()
            marks.append(time.perf_counter())

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, gene_likelihood=likelihood, **MODEL)
    options = {"accelerator": "gpu", "devices": 1, "train_size": 1.0, "logger": False}
    options |= {"enable_progress_bar": False, "check_val_every_n_epoch": None}
    model.train(n_epochs + 1, batch_size=minibatch, callbacks=[Ticking()], **options)
    return adata.n_obs * n_epochs / (marks[-1] - marks[0])


def limit(likelihood: str, minibatch: int, seconds: float = 1.0) -> float:
    """Return the cells per second of which the card does the products alone, in bfloat16."""
    hidden = torch.randn(minibatch, MODEL["n_hidden"], device="cuda").bfloat16()
    weight = torch.randn(COUNTS.n_genes, MODEL["n_hidden"], device="cuda").bfloat16()
    graph, n_products = torch.cuda.CUDAGraph(), 200
    hidden @ weight.t()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):  # without the time that a launch takes
        for _ in range(n_products):
            hidden @ weight.t()
    n_taken, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        graph.replay()
        torch.cuda.synchronize()
        n_taken += n_products
    return minibatch * n_taken / (time.perf_counter() - start) / PRODUCTS[likelihood]


def measure(adata, cells: Cells, likelihood: str, minibatch: int) -> dict:
    """Return the medians of both sides, and the limit, in cells per second."""
    ours, theirs = [], []
    for _ in range(N_REPEATS):
        ours.append(train_ours(cells, likelihood, minibatch))
        if find_spec("scvi"):
            theirs.append(train_theirs(adata, likelihood, minibatch))
    return {
        "likelihood": likelihood,
        "minibatch": minibatch,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs) if theirs else None,
        "limit": limit(likelihood, minibatch),
    }


def table(rows: list[dict]) -> list[str]:
    """Return the measurements as lines of Markdown."""
    lines = [
        "| likelihood | minibatch | sclatent, cells/s | scvi-tools, cells/s | ratio | of limit |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = f"{row['theirs']:,.0f}" if row["theirs"] else "not installed"
        ratio = f"{row['ours'] / row['theirs']:.1f}" if row["theirs"] else ""
        share = f"{row['ours'] / row['limit']:.0%}"
        fields = (row["likelihood"], row["minibatch"], f"{row['ours']:,.0f}", theirs, ratio, share)
        lines.append(f"| {' | '.join(map(str, fields))} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the numbers")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no GPU here: the path on a GPU is not measured")
        return
    adata = simulate(COUNTS)
    cells = gather_cells(adata, "cuda")
    rows = [measure(adata, cells, name, size) for name in LIKELIHOODS for size in MINIBATCHES]
    card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}", *table(rows), sep="\n")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"card": card, "torch": torch.__version__, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
