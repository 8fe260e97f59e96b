"""Small trainings of every model, for this process and for others."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sclatent.models.dca import Dca, build_dca
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.checkpoint import NO_CHECKPOINT, Checkpoint
from sclatent.training.loader import Cells
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

TRAIN, VALIDATION = np.arange(100), np.arange(100, 120)
SCVI = {"n_latent": 3, "n_hidden": 8, "n_components": 5}
PLAIN = {"minibatch": 32, "n_steps": 40}
TRAININGS = {
    "scvi": (SCVI, PLAIN),
    "scvi options": (
        {**SCVI, "likelihood": "zinb", "library": "latent", "prior": "vamp", "adversary": 1.0},
        {**PLAIN, "warmup_epochs": 3, "clip_norm": 1.0},
    ),
    "scvi that stops early": (
        SCVI,
        {**PLAIN, "schedule": "constant", "learning_rate": 0.3, "patience": 2, "warmup": 0},
    ),
    "scanvi": ({"labelled": "balanced"}, PLAIN),
    "scanvi of the paper": ({"labelled": "drawn", "elbo": "paper"}, PLAIN),
    "dca": (
        {"n_latent": 3, "n_hidden": 8, "dropout": 0.1},
        {
            **{**PLAIN, "optimiser": "rmsprop", "schedule": "plateau", "keep": "last"},
            **{"plateau": 2, "plateau_margin": 10.0},
        },
    ),
}


def small_cells() -> Cells:
    """120 cells of two types in two batches, 30 genes; every other label is hidden."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 2, 120)
    rate = np.where(kind[:, None] & (np.arange(30) < 10), 8.0, 1.0)
    label = np.where(np.arange(120) % 2, kind, -1)
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    return Cells(counts, random.integers(0, 2, 120), label, ["a", "b"], classes=["x", "y"])


def build(name: str, cells: Cells):
    """Return an untrained model, and where it learns labels from."""
    settings = TRAININGS[name][0]
    if name == "dca":
        return build_dca(cells, TRAIN, Dca(**settings), 0), "minibatch"
    scvi = build_scvi(cells, TRAIN, Scvi(**(settings if "scvi" in name else SCVI)), 0)
    if "scanvi" not in name:
        return scvi, "minibatch"
    return build_scanvi(scvi, cells, Scanvi(**settings), 0), settings["labelled"]


def train_small(name: str, checkpoint=NO_CHECKPOINT) -> dict:
    """Train, from the checkpoint if there is one; return hashes of weights and latent, curve."""
    cells = small_cells()
    model, labelled = build(name, cells)
    plan = Training(**TRAININGS[name][1])
    curve = fit(model, cells, TRAIN, VALIDATION, plan, 0, labelled, checkpoint)
    weights = b"".join(weight.numpy().tobytes() for weight in model.state_dict().values())
    latent = predict(model.latent, cells).tobytes()
    hashes = [hashlib.sha256(content).hexdigest() for content in (weights, latent)]
    return {"hashes": hashes, "curve": pd.DataFrame(curve).to_csv()}


@pytest.fixture
def train():
    """Return `train_small`."""
    return train_small


def main() -> None:
    """Train in a process of its own: names, folder of the checkpoint and of what came out."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        checkpoint = Checkpoint(folder / f"{name}.checkpoint", lambda: "same", 1e-9)
        found = train_small(name, checkpoint)
        (folder / f"{name}.txt").write_text("\n".join([*found["hashes"], found["curve"]]))
        checkpoint.remove()
