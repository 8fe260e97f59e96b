"""Read text, plain or gzipped, such as the Matrix Market file of a 10x folder: genes x cells."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import sparse

from sclatent import files
from sclatent.data.content import allowed, check_size
from sclatent.errors import InputError, problem

GZIP = b"\x1f\x8b"
PIECE = 2**20
SQUARE = 200  # genes and cells from which their totals tell one from the other


def is_gzipped(path) -> bool:
    """Say whether a file is gzipped, by how it begins."""
    with open(path, "rb") as file:
        return file.read(2) == GZIP


def opened(path):
    """Open a file, plain or gzipped."""
    return gzip.open(path) if is_gzipped(path) else open(path, "rb")


def pieces(path) -> Iterator[bytes]:
    """Yield what a file holds, plain or gzipped, piece by piece.

    Raises
    ------
    InputError
        As soon as a gzipped file unpacks to more than is allowed.
    """
    packed = Path(path).stat().st_size
    left = max(packed, allowed(path))
    with opened(path) as file:
        while piece := file.read(PIECE):
            left -= len(piece)
            if left < 0:
                what = f"is refused: {files.size(packed)} unpack to more than is allowed"
                fix = "unpack it yourself, look at it, and give the unpacked file"
                raise InputError(problem("E332", str(path), what, fix))
            yield piece


def check_unpacked(path) -> None:
    """Refuse a gzipped file that unpacks to more than is allowed, before anything is made of it.

    Raises
    ------
    InputError
        As `pieces`.
    """
    if is_gzipped(path):
        for _ in pieces(path):
            pass


def read_market(path: Path, named: tuple[int, int]) -> sparse.csr_matrix:
    """Read counts (n_cells, n_genes).

    Parameters
    ----------
    path
        Plain or gzipped.
    named
        How many genes and cells there are names for.

    Raises
    ------
    InputError
        When the file unpacks to more than is allowed, the sizes do not agree, a number has a point
        under a header of integers, or the matrix is square and its totals are those of one with
        genes and cells exchanged.
    ValueError
        When the file is damaged; with the line.
    """
    import scipy.io

    n_points = count_points(path)
    n_genes, n_cells, n_values, _, kind, symmetry = scipy.io.mminfo(path)
    if kind not in ("integer", "unsigned-integer", "real") or symmetry != "general":
        raise ValueError(f"it is a matrix of kind {kind}, {symmetry}: counts are integer, general")
    check_shape(path, (n_genes, n_cells), named)
    check_size(16 * n_values, str(path))
    if n_points and kind != "real":  # SciPy would cut them off
        what = "its header says integer, and it holds numbers with a point"
        raise InputError(problem("E228", str(path), what, "give raw counts"))
    try:
        counts = sparse.csr_matrix(scipy.io.mmread(path).T)
    except ValueError as error:
        if "Truncated" not in str(error):
            raise
        raise ValueError(f"{shortage(path, n_values)} ({error})") from error
    check_square(path, counts)
    return counts


def count_points(path: Path) -> int:
    """Return how many decimal points stand below the comments of a file, read to its end.

    Raises
    ------
    InputError
        As `pieces`, before SciPy opens the file.
    """
    n_points = sum(piece.count(b".") for piece in pieces(path))
    with opened(path) as file:
        while (line := file.readline()).startswith(b"%"):
            n_points -= line.count(b".")
    return n_points


def shortage(path: Path, n_values: int) -> str:
    """Say at which line a file ends, and how many values it should have held."""
    with opened(path) as file:
        n_lines = sum(1 for _ in file)
    return f"it promises {n_values:,} values and ends after line {n_lines:,}"


def check_shape(path, found: tuple[int, int], named: tuple[int, int]) -> None:
    """Compare the size of a matrix (genes, cells) with the names beside it."""
    if found == named:
        return
    what = (
        f"the matrix has {found[0]:,} rows x {found[1]:,} columns, the files beside it name "
        f"{named[0]:,} genes and {named[1]:,} cells"
    )
    fix = "take the three files from one run"
    if found == named[::-1]:
        what, fix = f"{what}: it is transposed", "write it with genes in rows and cells in columns"
    raise InputError(problem("E317", str(path), what, fix))


def check_square(path, counts: sparse.csr_matrix) -> None:
    """Refuse a matrix (n_cells, n_genes) of as many cells as genes that looks transposed.

    Its size does not tell. Totals of genes differ by orders of magnitude, those of cells do not.
    """
    if counts.shape[0] != counts.shape[1] or counts.shape[0] < SQUARE:
        return
    of_cells, of_genes = (np.log1p(np.asarray(counts.sum(axis)).ravel()).std() for axis in (1, 0))
    if of_cells > 1.5 * of_genes:
        what = (
            f"the matrix is square, and its columns' totals differ more than its rows' (standard "
            f"deviation of their logarithm {of_cells:.2f}, {of_genes:.2f}), as of genes: it is "
            "transposed"
        )
        fix = "write it with genes in rows and cells in columns, or as h5ad"
        raise InputError(problem("E317", str(path), what, fix))
