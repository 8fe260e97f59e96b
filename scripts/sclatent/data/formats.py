"""One reader for every file format; the format is told by what the file holds, not by its name."""

import csv
import io
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from sclatent.data.blocks import stored
from sclatent.data.content import (
    Content,
    check_declared,
    check_size,
    read_dense,
    read_matrix,
    read_part,
    readable,
    text,
)
from sclatent.data.market import check_unpacked, opened
from sclatent.data.settings import Entry
from sclatent.data.tenx import is_tenx_hdf5, matrix_files, read_tenx_hdf5, read_tenx_matrix
from sclatent.errors import InputError, nearest, problem

CELL_NAMES = ("CellID", "obs_names", "cell_names", "barcodes", "barcode")
GENE_NAMES = ("Gene", "var_names", "gene_names", "gene_name", "Accession")
TRUTH = "true_"
LINES = 1000  # of a table, dense for a moment: 240 MB at 30,000 columns


def read_content(path, entry: Entry) -> Content:
    """Read one sample from a file or folder of any known format.

    Parameters
    ----------
    path
        An h5ad, 10x HDF5, loom, csv or tsv (plain or gzipped) file, a zarr store, a 10x matrix
        folder, or the matrix file of one.
    entry
        The dataset's config, for `genome` and `genes_in_rows`.

    Returns
    -------
    Content
        Whose matrices are read when called for.

    Raises
    ------
    InputError
        When there is no such file, it is of no known format, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        there = [item.name for item in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = nearest(path.name, sorted(there)) if there else f"there is no {path.parent} either"
        raise InputError(problem("E301", str(path), "does not exist", f"correct the path; {hint}"))
    with readable(path):
        return choose_reader(path, entry)(path)


HDF5_SUFFIXES = (".h5ad", ".h5", ".hdf5", ".loom")


def choose_reader(path: Path, entry: Entry):
    """Return the function that reads what lies at `path`."""
    if path.is_dir():
        return folder_reader(path)
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            if isinstance(file.get("matrix"), h5py.Dataset):
                return read_loom
            if is_tenx_hdf5(file):
                return partial(read_tenx_hdf5, genome=entry.genome)
            if "obs" in file and "var" in file:
                return read_h5ad
            held = ", ".join(list(file)[:10])
        what = f"is HDF5, but neither h5ad, 10x nor loom; it holds: {held}"
        raise InputError(problem("E311", str(path), what, "convert it to h5ad"))
    if path.name.endswith(("matrix.mtx", "matrix.mtx.gz")):
        return read_tenx_matrix
    if path.suffix in HDF5_SUFFIXES or not path.stat().st_size:
        start = first_bytes(path)
        what = f"is not HDF5 but begins with {start!r}" if start else "is empty"
        fix = (
            "give the file itself; this may be a table, a web page or a broken copy under its name"
        )
        raise InputError(problem("E312", str(path), what, fix))
    return partial(read_text, genes_in_rows=entry.genes_in_rows)


def first_bytes(path: Path) -> bytes:
    """Return how a file begins."""
    with open(path, "rb") as file:
        return file.read(40)


def folder_reader(path: Path):
    """Return the function that reads a folder: a zarr store or one 10x matrix."""
    if any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        return read_zarr
    matrices = list(matrix_files(path).values())
    if len(matrices) == 1:
        return lambda _: read_tenx_matrix(matrices[0])
    what = f"holds {len(matrices)} matrices of counts and is no zarr store"
    fix = "name a folder with matrix.mtx(.gz), barcodes.tsv(.gz) and features.tsv(.gz)"
    raise InputError(problem("E313", str(path), what, fix))


def read_h5ad(path: Path) -> Content:
    """Read obs, and how to read each matrix, of an h5ad file."""
    with h5py.File(path) as file:
        if not isinstance(file["obs"], h5py.Group):  # written by anndata before 0.7
            return read_old_h5ad(path)
        obs = read_part(file["obs"])
        places = {"X": ("X", "var"), "raw": ("raw/X", "raw/var")}
        places |= {name: (f"layers/{name}", "var") for name in file.get("layers", {})}
        matrices = {
            name: partial(load_h5ad, path, *place)
            for name, place in places.items()
            if place[0] in file and file[place[0]].attrs.get("encoding-type") != "null"
        }
        obsm, varm = (
            {
                name: read_part(item)
                for name, item in file.get(part, {}).items()
                if name.startswith(TRUTH)
            }
            for part in ("obsm", "varm")
        )
    return Content(str(path), obs, matrices, obsm, varm)


def load_h5ad(path: Path, place: str, genes: str):
    """Read one matrix of an h5ad file and its genes; compressed rows stay in the file."""
    with readable(path), h5py.File(path) as file:
        var, attrs = read_part(file[genes]), file[place].attrs
        kind = attrs.get("encoding-type", attrs.get("h5sparse_format", ""))
        if kind not in ("csr_matrix", "csr"):
            return read_matrix(file[place]), var
    return stored(path, place), var


def read_old_h5ad(path: Path) -> Content:
    """Read a file of anndata before 0.7, whose tables have another form."""
    import warnings

    import anndata

    with h5py.File(path) as file:
        check_declared(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they all say that the file is old
        return from_anndata(str(path), anndata.read_h5ad(path))


def read_zarr(path: Path) -> Content:
    """Read an AnnData zarr store, version 2 or 3; all of it has to fit into memory."""
    import anndata
    import zarr

    members = zarr.open_group(path, mode="r").members(max_depth=None)
    check_size(sum(item.nbytes for _, item in members if isinstance(item, zarr.Array)), "it")
    return from_anndata(str(path), anndata.read_zarr(path))


def from_anndata(where: str, adata) -> Content:
    """Return the content of an AnnData in memory."""
    matrices = {} if adata.X is None else {"X": lambda: (adata.X, adata.var)}
    if adata.raw is not None:
        matrices["raw"] = lambda: (adata.raw.X, adata.raw.var)
    for name in adata.layers:
        matrices[name] = partial(lambda name: (adata.layers[name], adata.var), name)
    obsm, varm = (
        {name: value for name, value in part.items() if name.startswith(TRUTH)}
        for part in (adata.obsm, adata.varm)
    )
    return Content(where, adata.obs, matrices, obsm, varm)


def read_loom(path: Path) -> Content:
    """Read a loom file, which holds genes x cells, their attributes and further layers."""
    with h5py.File(path) as file:
        obs, var = attributes(file["col_attrs"]), attributes(file["row_attrs"])
        places = {"X": "matrix"} | {name: f"layers/{name}" for name in file.get("layers", {})}
    obs, var = named(obs, CELL_NAMES, "cells"), named(var, GENE_NAMES, "genes")
    if "Accession" in var:
        var = var.rename(columns={"Accession": "gene_id"})
    matrices = {name: partial(load_loom, path, place, var) for name, place in places.items()}
    return Content(str(path), obs, matrices)


def attributes(group: h5py.Group) -> pd.DataFrame:
    """Return the one-dimensional attributes of a loom file's rows or columns."""
    check_declared(group)
    columns = {name: item for name, item in group.items() if item.ndim == 1}
    return pd.DataFrame(
        {name: text(item) if item.dtype.kind in "OS" else item[:] for name, item in columns.items()}
    )


def named(table: pd.DataFrame, options: tuple, what: str) -> pd.DataFrame:
    """Return a table indexed by the first of some columns that it has."""
    column = next((option for option in options if option in table), None)
    if column is None:
        raise ValueError(f"its {what} have no names: none of {', '.join(options)}")
    return table.set_index(pd.Index(table[column].astype(str).to_numpy(object))).drop(
        columns=column
    )


def load_loom(path: Path, place: str, var: pd.DataFrame):
    """Read one matrix of a loom file."""
    with readable(path), h5py.File(path) as file:
        return read_dense(file[place], cells_in_columns=True), var


def read_text(path: Path, genes_in_rows: bool = False) -> Content:
    """Read a table of counts with a header, cells in rows unless `genes_in_rows`.

    The names are read apart from the numbers, since pandas renames what occurs twice.
    """
    check_unpacked(path)
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
        try:
            line = file.readline()
        except UnicodeDecodeError:
            line = "\0"
        if "\0" in line:
            what = "is no text in UTF-8, nor of any format known here"
            fix = "convert it to h5ad (an .rds file of R, for one); save a table as UTF-8"
            raise InputError(problem("E312", str(path), what, fix))
        separator = "\t" if "\t" in line else ","
        header = next(csv.reader([line], delimiter=separator), [])
        rows, counts = read_blocks(path, file, separator)
    n_columns = counts.shape[1]
    if len(header) not in (n_columns, n_columns + 1):
        raise ValueError(f"its header has {len(header)} names for {n_columns} columns of numbers")
    columns = np.array(header[len(header) - n_columns :], dtype=object)
    cells, genes, counts = (columns, rows, counts.T) if genes_in_rows else (rows, columns, counts)
    obs, var = pd.DataFrame(index=cells), pd.DataFrame(index=genes)
    return Content(str(path), obs, {"X": lambda: (counts, var)})


def read_blocks(path: Path, file, separator: str) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Read names and numbers of the lines of a table, a block of lines at a time."""
    names, blocks = [], []
    options = {"header": None, "converters": {0: str}, "chunksize": LINES}
    for block in pd.read_csv(file, sep=separator, **options):
        names.extend(block.pop(0))
        words = [column for column, kind in block.dtypes.items() if kind.kind == "O"]
        if words:
            value = block[words[0]].iloc[0]
            what = f"holds text in column {words[0] + 1}, such as '{value}'"
            fix = "leave only names in the first column and counts in all others"
            raise InputError(problem("E312", str(path), what, fix))
        blocks.append(sparse.csr_matrix(block.to_numpy()))
    return np.array(names, dtype=object), sparse.vstack(blocks, format="csr")
