"""Read what Cell Ranger writes: HDF5 files and matrix folders of its versions 2 and 3."""

import csv
import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from sclatent.data.blocks import stored
from sclatent.data.content import Content, readable, text
from sclatent.data.market import check_unpacked, opened, read_market
from sclatent.errors import InputError, nearest, problem

GENE_TYPE = "Gene Expression"


def is_tenx_hdf5(file: h5py.File) -> bool:
    """Say whether an HDF5 file is one of Cell Ranger's, of version 2 or 3."""
    return bool(genome_groups(file)) or isinstance(file.get("matrix"), h5py.Group)


def genome_groups(file: h5py.File) -> list[str]:
    """Return the genomes of a version 2 file, which has one group for each."""
    return [
        name
        for name, group in file.items()
        if isinstance(group, h5py.Group) and {"barcodes", "genes", "indptr"} <= set(group)
    ]


def read_tenx_hdf5(path, genome: str | None = None) -> Content:
    """Read a 10x HDF5 file of layout 2 (a group per genome) or 3 (one group with features).

    Only features of type Gene Expression are kept, of one genome.

    Raises
    ------
    InputError
        When the file has several genomes and `genome` does not choose one of them.
    """
    with h5py.File(path) as file:
        genomes = genome_groups(file)
        group = file[choose_genome(path, genomes, genome)] if genomes else file["matrix"]
        obs = pd.DataFrame(index=text(group["barcodes"]))
        ids, names = ("genes", "gene_names") if genomes else ("features/id", "features/name")
        var = pd.DataFrame({"gene_id": text(group[ids])}, index=text(group[names]))
        # Features x cells by column is cells x features by row.
        place, shape = group.name, (len(obs), len(var))
        kept = np.ones(len(var), bool)
        if not genomes:
            kept = keep_genes(path, text(group["features/feature_type"]))
            if "genome" in group["features"]:
                of = text(group["features/genome"])
                kept &= of == choose_genome(path, sorted(set(of[kept])), genome)
    genes = None if kept.all() else np.flatnonzero(kept)
    return Content(
        str(path), obs, {"X": lambda: (stored(path, place, shape).keep(genes=genes), var[kept])}
    )


def choose_genome(path, genomes: list[str], genome: str | None) -> str:
    """Return the genome asked for, or the only one there is."""
    if genome is None and len(genomes) > 1:
        what = f"holds {len(genomes)} genomes: {', '.join(genomes)}"
        raise InputError(problem("E315", str(path), what, f"set genome: {genomes[0]} (or another)"))
    if genome is not None and genome not in genomes:
        what = f"has no genome '{genome}'"
        raise InputError(
            problem("E316", str(path), what, f"change genome; {nearest(genome, genomes)}")
        )
    return genome or "".join(genomes)


def keep_genes(path, types: np.ndarray) -> np.ndarray:
    """Return which features are genes, and say what else there is."""
    kept = types == GENE_TYPE
    others = pd.Series(types[~kept]).value_counts()
    if len(others):
        listed = ", ".join(f"{n:,} {kind}" for kind, n in others.items())
        print(f"WARNING {path}: {listed} left out; {kept.sum():,} {GENE_TYPE} kept")
    return kept


def matrix_files(folder) -> dict[str, Path]:
    """Return {prefix: matrix file} of a folder; Cell Ranger's own have no prefix."""
    found = sorted(Path(folder).glob("*matrix.mtx")) + sorted(Path(folder).glob("*matrix.mtx.gz"))
    found = [path for path in found if not path.name.startswith("._")]
    return {path.name.split("matrix.mtx")[0]: path for path in found}


def read_tenx_matrix(path) -> Content:
    """Read a ``matrix.mtx`` or ``matrix.mtx.gz`` with its barcodes and features beside it.

    The three files may share a prefix (``GSM1_matrix.mtx.gz``, ``GSM1_barcodes.tsv.gz``).

    Raises
    ------
    InputError
        When a file is missing or the sizes of the three do not agree.
    """
    path = Path(path)
    barcodes = read_columns(beside(path, "barcodes.tsv"))
    features = read_columns(beside(path, "features.tsv", "genes.tsv"))
    with readable(path):
        counts = read_market(path, (len(features), len(barcodes)))
    var = pd.DataFrame(index=features[min(1, features.shape[1] - 1)].to_numpy(object))
    if features.shape[1] > 1:
        var["gene_id"] = features[0].to_numpy(object)
    if features.shape[1] > 2:
        kept = keep_genes(path, features[2].to_numpy(object))
        counts, var = counts[:, kept], var[kept]
    obs = pd.DataFrame(index=barcodes[0].to_numpy(object))
    return Content(str(path), obs, {"X": lambda: (counts, var)})


def beside(matrix: Path, *names: str) -> Path:
    """Return the first of some files, plain or gzipped, that lies beside a matrix."""
    prefix = matrix.name.split("matrix.mtx")[0]
    for name in names:
        for candidate in (prefix + name, prefix + name + ".gz"):
            if (matrix.parent / candidate).is_file():
                return matrix.parent / candidate
    what = f"{prefix}{names[0]}(.gz) is not there"
    raise InputError(problem("E302", str(matrix.parent), what, f"put it beside {matrix.name}"))


def read_columns(path: Path) -> pd.DataFrame:
    """Read a table without a header, plain or gzipped, with any line ends, with or without BOM."""
    check_unpacked(path)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline=None) as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{path.name}: its lines differ in their number of columns")
    return pd.DataFrame(rows, dtype=object)
