"""What a file of counts holds before anybody has checked it, and guards for reading it."""

import contextlib
import csv
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from sclatent import files
from sclatent.errors import InputError, problem

MAX_BYTES = 200 * 10**9  # that a file may unpack to
MAX_RATIO = 200  # unpacked to packed; counts as text compress 10 to 20 times
SMALL = 10**7  # bytes that any file may unpack to, whatever the ratio
BLOCK = 2**25  # values of a dense matrix held at a time: 256 MB as float64
UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, IndexError, RuntimeError, OverflowError),
    *(zlib.error, csv.Error, tarfile.TarError, zipfile.BadZipFile),
)


@dataclass
class Content:
    """One sample as its file holds it.

    Attributes
    ----------
    where : str
        The file, for messages.
    obs : pandas.DataFrame
        One row per cell; the index holds the barcodes.
    matrices : dict of str to callable
        For every matrix of the file (``X``, ``raw`` and the layers) a function that reads it and
        returns the matrix (n_cells, n_genes), sparse, dense or as `blocks.Rows` that stay in the
        file, and its genes as a DataFrame. Only what is needed is read.
    obsm, varm : dict
        The simulator's truth, names that begin with ``true_``.
    """

    where: str
    obs: pd.DataFrame
    matrices: dict[str, Callable]
    obsm: dict = field(default_factory=dict)
    varm: dict = field(default_factory=dict)


@contextlib.contextmanager
def readable(path) -> Iterator[None]:
    """Turn the many errors of a damaged file into one that names the file and its size.

    Raises
    ------
    InputError
        In place of any error of the format libraries.
    """
    try:
        yield
    except UNREADABLE as error:
        what = str(error).strip().split("\n")[0] or type(error).__name__
        n_bytes = f" ({files.size(Path(path).stat().st_size)})" if Path(path).is_file() else ""
        fix = "compare its size and hash with the source's, or fetch it again"
        raise InputError(
            problem("E310", f"{path}{n_bytes}", f"cannot be read: {what}", fix)
        ) from error


def text(values) -> np.ndarray:
    """Return names of an HDF5 dataset or a table as Python strings."""
    if isinstance(values, h5py.Dataset):
        check_declared(values)
    values = np.asarray(values).ravel()
    return np.array(
        [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values],
        dtype=object,
    )


def memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_size(n_bytes: int, where: str) -> None:
    """Refuse what declares more than the memory of this machine, before it is read.

    Raises
    ------
    ValueError
        Which `readable` makes an error about the file.
    """
    if n_bytes > memory():
        raise ValueError(
            f"{where} declares {files.size(n_bytes)}, this machine has {files.size(memory())}"
        )


def allowed(path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> int:
    """Return how many bytes a file may unpack to, by its size."""
    return min(max_bytes, max(SMALL, int(max_ratio * Path(path).stat().st_size)))


def check_declared(element: h5py.Dataset | h5py.Group) -> None:
    """Refuse a part of a file that declares a thousand times what it stores and fits no memory.

    It holds no counts but a trap. What a group holds counts together.

    Raises
    ------
    ValueError
        As `check_size`.
    """
    traps = (item for item in parts(element) if item.nbytes > 1000 * item.id.get_storage_size())
    check_size(sum(item.nbytes for item in traps), element.name)


def parts(element) -> Iterator[h5py.Dataset]:
    """Yield an HDF5 dataset, or those in a group and the groups in it."""
    if isinstance(element, h5py.Dataset):
        yield element
    elif isinstance(element, h5py.Group):
        for item in element.values():
            yield from parts(item)


def read_part(element):
    """Read a table or an array of an AnnData from an open HDF5 file."""
    from anndata.io import read_elem

    check_declared(element)
    return read_elem(element)


def read_dense(dataset: h5py.Dataset, cells_in_columns: bool = False) -> sparse.csr_matrix:
    """Read a dense HDF5 matrix block by block as CSR (n_cells, n_genes).

    A dense matrix may be larger than the memory as long as its counts fit.
    """
    check_declared(dataset)
    n_cells, n_genes = dataset.shape[::-1] if cells_in_columns else dataset.shape
    step = max(1, BLOCK // max(1, n_genes))
    blocks = [sparse.csr_matrix((0, n_genes), dtype=dataset.dtype)]
    for start in range(0, n_cells, step):
        part = slice(start, start + step)
        block = dataset[:, part].T if cells_in_columns else dataset[part]
        blocks.append(sparse.csr_matrix(block))
    return sparse.vstack(blocks, format="csr", dtype=dataset.dtype)


def read_matrix(element) -> sparse.spmatrix:
    """Read an AnnData matrix, sparse or dense, from an open HDF5 file."""
    from anndata.io import read_elem

    if isinstance(element, h5py.Dataset):
        return read_dense(element)
    check_size(sum(part.nbytes for part in parts(element)), element.name)
    return read_elem(element)
