"""The two datasets that training is timed on, as the stages of the workflow prepare them."""

from pathlib import Path

import parity_data
from simulated import simulate

from sclatent import files
from sclatent.data.splits import Shares, split_cells
from sclatent.models.scvi import Scvi
from sclatent.training.loader import Cells, Rows, gather_cells, split_rows

DATASETS = ("simulated", "pbmc_labelled")
N_CELLS, N_GENES = 20_000, 2000
"""Of the simulated dataset; the other one has its own cells, and so many chosen genes."""
SEED = 0
"""Of the simulation and of the split. The repeats differ in the seed of the training."""
MODEL = {"n_latent": 10, "n_hidden": 128, "n_layers": 1}
"""The architecture on both sides: the defaults of scvi-tools."""
SMALL = parity_data.Small(2000, 500)
"""What is left for a trial."""


def prepare(dataset: str, data: Path, folder: Path, small: parity_data.Small | None) -> None:
    """Write the cells, splits and genes of a dataset into a folder of its name.

    Parameters
    ----------
    dataset
        One of `DATASETS`.
    data
        Where the files of benchmarks/real.yaml lie.
    folder
        Gains a folder of the dataset's name, which `parity_data.read` reads.
    small
        How much is left for a trial.
    """
    if dataset != "simulated":
        parity_data.prepare(data, folder, dataset, [SEED], small)
        return
    cells = simulate(*(small or (N_CELLS, N_GENES)), SEED)
    here = folder / dataset
    files.write_h5ad(here / "cells.h5ad", cells)
    splits = split_cells(cells.obs, Shares(**parity_data.configured()["splits"]), SEED)
    files.write_table(here / f"seed{SEED}" / "splits.tsv.gz", splits)
    genes = cells.var_names.to_frame(index=False, name="gene")
    files.write_table(here / f"seed{SEED}" / "genes.tsv", genes)


def read(folder: Path) -> tuple:
    """Return a prepared dataset: the AnnData, what a model may see of it, and the split."""
    adata = parity_data.read(folder, SEED)
    min_cells = parity_data.configured()["scanvi"]["min_cells_per_label"]
    cells: Cells = gather_cells(adata, "cpu", min_cells)
    rows: Rows = split_rows(adata)
    return adata, cells, rows


def section(name: str) -> dict:
    """Return the settings of a model in the default config, without those of its training."""
    found = parity_data.configured()[name]
    return {key: value for key, value in found.items() if key != "training"}


def architecture(likelihood: str) -> Scvi:
    """Return our scVI, with the default settings but for what both sides have in common."""
    return Scvi(**section("scvi") | MODEL | {"likelihood": likelihood})


def training(name: str, threads: int, **changed) -> dict:
    """Return the default settings of a model's training, on so many threads."""
    config = parity_data.configured()
    return config["training"] | config[name]["training"] | {"threads": threads} | changed
