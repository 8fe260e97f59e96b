"""The cells that both sides of the comparison are given, by the stages of the workflow itself."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from sclatent import files
from sclatent.data.blocks import Dataset, in_memory, write_dataset
from sclatent.data.chosen import read_counts
from sclatent.data.genes import Selection, select_genes
from sclatent.data.qc import Filters, filter_cells
from sclatent.data.settings import Entry, Limits
from sclatent.data.simulate import Simulation, simulate
from sclatent.data.sources import read_dataset
from sclatent.data.splits import Shares, split_cells
from sclatent.data.store import read_cells

ROOT = Path(__file__).resolve().parent.parent


class Small(NamedTuple):
    """How much is left of a dataset for a trial."""

    n_cells: int = 600
    n_genes: int = 300


def configured(compat: bool = False) -> dict:
    """Return the defaults of the workflow, with the preset `scvi-tools` on top if asked."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    preset = yaml.safe_load((ROOT / "config/presets/scvi-tools.yaml").read_text())
    return merged(config, preset) if compat else config


def merged(below, above):
    """Return a mapping with what another one says, key by key."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def entry_of(dataset: str) -> dict:
    """Return how a dataset of benchmarks/real.yaml is read; its source is the file's name.

    The datasets of config/config.yaml are as they stand there.
    """
    if dataset in (own := configured()["datasets"]):
        return own[dataset]
    entry = yaml.safe_load((ROOT / "benchmarks/real.yaml").read_text())["datasets"][dataset]
    return entry | {"source": Path(entry["source"]).name}


def sample_of(entry: Entry, data: Path, folder: Path) -> str:
    """Return where a dataset is read from; a simulated one is made first, in `folder`."""
    if entry.source == "simulate":
        files.write_h5ad(folder / "simulated.h5ad", simulate(Simulation(**entry.simulate)))
        return str(folder / "simulated.h5ad")
    return entry.source if entry.source.startswith("scanpy:") else str(data / entry.source)


def prepare(data: Path, folder: Path, dataset: str, seeds: list, small: Small | None) -> None:
    """Write the filtered cells of a dataset, and the splits and genes of each seed.

    Parameters
    ----------
    data
        Where the files of benchmarks/real.yaml lie.
    folder
        Gains a folder of the dataset's name.
    dataset
        As benchmarks/real.yaml or config/config.yaml calls it.
    seeds
        A split for each.
    small
        Draws so many cells first, and chooses so many genes.
    """
    config = configured()
    entry, limits = Entry(**entry_of(dataset)), Limits(**config["input"])
    sample = sample_of(entry, data, folder)
    counts = read_dataset(dataset, entry, {dataset: sample}, limits)
    n_cells = len(counts.obs)
    if small and n_cells > small.n_cells:
        rng = np.random.default_rng(0)
        drawn = np.isin(np.arange(n_cells), rng.choice(n_cells, small.n_cells, replace=False))
        counts = Dataset(counts.table[drawn].copy(), counts.counts.keep(drawn))
    write_dataset(
        folder / dataset / "cells.h5ad", filter_cells(counts, Filters(**config["qc"])).cells
    )
    chosen = config["genes"] | ({"n_top": small.n_genes} if small else {})
    for seed in seeds:
        here = folder / dataset / f"seed{seed}"
        cells = read_cells(folder / dataset / "cells.h5ad")
        splits = split_cells(cells.obs, Shares(**config["splits"]), seed)
        files.write_table(here / "splits.tsv.gz", splits)
        train = cells[(splits["cells"] == "train").to_numpy()]
        genes = select_genes(
            in_memory(train.X), train.var_names, train.obs["batch"], Selection(**chosen)
        )
        files.write_table(here / "genes.tsv", genes)


def read(folder: Path, seed: int):
    """Return the cells of a dataset with the genes and splits of a seed, as AnnData."""
    here = folder / f"seed{seed}"
    paths = {"genes": here / "genes.tsv", "splits": here / "splits.tsv.gz"}
    return read_counts(folder / "cells.h5ad", **paths).to_anndata()
