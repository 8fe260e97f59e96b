"""The counts of the dataset that ships inside scanpy, taken back from its normalised values."""

import importlib.util
from pathlib import Path

import numpy as np
from scipy import sparse

from sclatent.data.content import Content
from sclatent.errors import InputError, nearest, problem

PREFIX = "scanpy:"
FILES = {"pbmc68k_reduced": "10x_pbmc68k_reduced.h5ad"}
SCALE = 10_000
# Rounding to float32 was measured at up to 0.08 for a count of 213; relative to the count at up
# to 0.08 %. A fraction that is no rounding would show in the small counts, of which most are.
ABSOLUTE, RELATIVE = 0.01, 0.001


def read_embedded(source: str) -> Content:
    """Read a dataset that ships inside scanpy, without importing scanpy.

    Parameters
    ----------
    source
        ``scanpy:pbmc68k_reduced``: 700 PBMC and 765 genes with the labels `bulk_labels`
        (Zheng et al. 2017, doi:10.1038/ncomms14049).

    Raises
    ------
    InputError
        When scanpy holds no such dataset, or its values are not what they were.
    """
    from sclatent.data.formats import read_old_h5ad

    name = source.removeprefix(PREFIX)
    if name not in FILES:
        fix = f"correct the source; {nearest(name, FILES)}"
        raise InputError(problem("E318", source, "is no dataset of scanpy that holds counts", fix))
    package = importlib.util.find_spec("scanpy")
    if package is None:
        raise InputError(
            problem("E319", source, "scanpy is not installed", "install the project's lock")
        )
    path = Path(package.origin).parent / "datasets" / FILES[name]
    content = read_old_h5ad(path)
    values, var = content.matrices["raw"]()
    counts = invert(values, content.obs["n_counts"].to_numpy(), source)
    content.where, content.matrices = source, {"X": lambda: (counts, var)}
    return content


def invert(values, library_size: np.ndarray, where: str) -> sparse.csr_matrix:
    """Return the counts x behind log1p(10,000 x / library size).

    Parameters
    ----------
    values : CSR matrix (n_cells, n_genes)
        Normalised values.
    library_size : array (n_cells,)
        Counts of each cell before genes were chosen.

    Raises
    ------
    InputError
        When a result is further from a whole number than float32 explains.
    """
    values = sparse.csr_matrix(values, dtype=np.float64)
    per_value = np.repeat(library_size.astype(np.float64), np.diff(values.indptr))
    counts = np.expm1(values.data) * per_value / SCALE
    whole = np.rint(counts)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(counts - whole) <= ABSOLUTE + RELATIVE * whole)  # True for NaN and Inf
    if bad.any():
        what = f"its values do not come from counts: {counts[bad.argmax()]:.4f} is not whole"
        raise InputError(problem("E320", where, what, "install the versions of the project's lock"))
    result = sparse.csr_matrix(
        (whole.astype(np.int32), values.indices, values.indptr), shape=values.shape
    )
    result.eliminate_zeros()
    return result
