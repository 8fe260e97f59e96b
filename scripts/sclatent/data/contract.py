"""The contract for counts: whole numbers, none missing, each cell and gene with a name of its own.

Every problem of a sample is found in one pass and added to a list, so that the user mends a file
once. The matrix that passes is CSR int32 with sorted indices, no duplicates and no stored zeros.
"""

import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse

from sclatent.data.blocks import Rows, in_memory
from sclatent.data.content import Content
from sclatent.data.names import ENSEMBL, strip_versions
from sclatent.errors import InputError, nearest, problem

LARGEST = 2**31 - 1
EXACT_FLOAT32 = 2**24  # the next whole number is not a float32
KINDS = {
    "are NaN": "E225",
    "are infinite": "E226",
    "are negative": "E227",
    "are not whole numbers": "E228",
    "are too large": "E229",
}
BARCODE = re.compile(r"(?<![A-Za-z])[ACGT]{10,}(?![A-Za-z])")
COMMON_GENES = {"ACTB", "GAPDH", "B2M", "MALAT1", "EEF1A1", "TMSB4X", "RPLP0", "TPT1"}
ID_COLUMNS = ("gene_id", "gene_ids", "ensembl_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("gene_symbol", "gene_symbols", "gene_name", "feature_name", "symbol")


@dataclass(frozen=True)
class Fault:
    """One kind of bad value in a matrix: how many of it, and where the first one is."""

    kind: str
    n_values: int
    n_stored: int
    value: float
    cell: int
    gene: int


def scan(counts: Rows) -> list[Fault]:
    """Look at every stored value of a matrix for what no count can be.

    Parameters
    ----------
    counts
        Of any numeric type.

    Returns
    -------
    list of Fault
        At most one per kind: NaN, infinite, negative, not whole, too large for int32 (or, as
        float32, too large to be exact). Empty for counts.
    """
    totals, first, n_stored, n_cells = dict.fromkeys(KINDS, 0), {}, 0, 0
    for block in counts:
        for kind, bad in zip(KINDS, bad_values(block.data), strict=True):
            if bad is not None and (n_bad := int(np.count_nonzero(bad))):
                totals[kind] += n_bad
                place = int(bad.argmax())
                cell = n_cells + int(np.searchsorted(block.indptr, place, "right")) - 1
                first.setdefault(kind, (block.data[place].item(), cell, int(block.indices[place])))
        n_stored += block.nnz
        n_cells += block.shape[0]
    return [Fault(kind, totals[kind], n_stored, *where) for kind, where in first.items()]


def bad_values(values: np.ndarray) -> list[np.ndarray | None]:
    """Return a mask for each of `KINDS`; None where the type rules the kind out."""
    if values.dtype.kind == "b":
        return [None] * 5
    too_large = values > LARGEST if values.dtype.itemsize >= 4 else None
    if values.dtype.kind in "iu":
        return [None, None, values < 0, None, too_large]
    finite = np.isfinite(values)
    fraction = finite & (values != np.rint(values))
    limit = EXACT_FLOAT32 if values.dtype.itemsize <= 4 else LARGEST
    too_large = finite & (values > limit)
    return [np.isnan(values), np.isinf(values), finite & (values < 0), fraction, too_large]


def as_counts(matrix) -> Rows | None:
    """Return any matrix as counts with its values as they are; None when it holds no numbers."""
    if isinstance(matrix, Rows):
        return matrix if matrix.dtype.kind in "biuf" else None
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
    return in_memory(sparse.csr_matrix(matrix)) if matrix.dtype.kind in "biuf" else None


def choose_counts(content: Content, layer: str | None, problems: list[str]):
    """Find the matrix of raw counts of a sample.

    Parameters
    ----------
    content
        The sample.
    layer
        ``X``, ``raw`` or a layer. By default X, else raw where X is not counts and raw is.
    problems
        Problems found are added.

    Returns
    -------
    counts : Rows (n_cells, n_genes) or None
        Int32 in canonical form.
    var : pandas.DataFrame or None
    """
    there = content.matrices
    if layer is not None and layer not in there:
        fix = f"correct layer; {nearest(layer, there)}"
        problems.append(problem("E222", content.where, f"has no layer '{layer}'", fix))
        return None, None
    wanted = layer or "X"
    counts, var, why = load(content, wanted)
    if why and layer is None and "raw" in there:
        raw, raw_var, not_raw = load(content, "raw")
        if not not_raw:
            print(f"{content.where}: X does not hold counts ({why[0][1]}), raw does and is used")
            return raw.map(partial(to_int32, where=content.where), np.int32), raw_var
    if not why:
        return counts.map(partial(to_int32, where=content.where), np.int32), var
    fix = where_counts_are(content, wanted)
    where = f"{content.where} {wanted}"
    problems.extend(problem(code, where, what, fix) for code, what in why)
    return None, None


def load(content: Content, name: str):
    """Return a matrix as counts, its genes, and what is wrong with it: codes and words."""
    if name not in content.matrices:
        return None, None, [("E222", f"there is no {name}")]
    matrix, var = content.matrices[name]()
    counts = as_counts(matrix)
    if counts is None:
        return None, None, [("E223", f"it holds {matrix.dtype}, not numbers")]
    shape = (len(content.obs), len(var))
    if counts.shape != shape:
        what = f"its shape is {counts.shape}, its cells and genes are {shape}"
        return None, None, [("E224", what)]
    why = [(KINDS[fault.kind], describe(fault, content.obs, var)) for fault in scan(counts)]
    return counts, var, why


def describe(fault: Fault, obs: pd.DataFrame, var: pd.DataFrame) -> str:
    """Return a fault in words, with numbers and an example."""
    percent = 100 * fault.n_values / fault.n_stored
    return (
        f"{fault.n_values:,} of {fault.n_stored:,} stored values ({percent:.3g} %) {fault.kind}, "
        f"such as {fault.value:.6g} for cell {obs.index[fault.cell]}, gene {var.index[fault.gene]}"
    )


def where_counts_are(content: Content, wrong: str) -> str:
    """Return the fix: the matrices of the same sample that hold counts, or that none does."""
    holding = [name for name in content.matrices if name != wrong and not load(content, name)[2]]
    if holding:
        others = f" (so do {', '.join(holding[1:])})" if holding[1:] else ""
        return f"set layer: {holding[0]}, which holds counts{others}"
    return "give a file with raw counts; no other matrix of this one holds them"


def to_int32(counts: sparse.csr_matrix, where: str) -> sparse.csr_matrix:
    """Return a block of counts that passed `scan` in the canonical form."""
    if counts.has_canonical_format and counts.data.all():  # as most: indices need no copy
        data = counts.data.astype(np.int32)
        return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)
    counts = counts.astype(np.int64 if not counts.has_canonical_format else np.int32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if counts.nnz and counts.data.max() > LARGEST:
        what = (
            f"entries of one cell and gene sum to {counts.data.max():,}, more than an int32 holds"
        )
        raise InputError(problem("E229", where, what, "give a file that names each entry once"))
    return sparse.csr_matrix(counts, dtype=np.int32)


def name_genes(var: pd.DataFrame, where: str, problems: list[str]) -> pd.DataFrame:
    """Return the genes under unique names: symbols, where two share one with the Ensembl id.

    Parameters
    ----------
    var
        Genes as the file names them, by symbol or by id, the other perhaps in a column.

    Returns
    -------
    pandas.DataFrame
        Index the names; `gene_id` where known; the simulator's truth (columns ``true_*``).
    """
    names = var.index.astype(str)
    symbols, ids = pd.Series(names), None
    columns = [column for column in ID_COLUMNS if column in var]
    if columns:
        ids = strip_versions(pd.Series(var[columns[0]].astype(str).to_numpy(object)), where)
    elif names.str.match(ENSEMBL).mean() > 0.5:
        symbols = ids = strip_versions(pd.Series(names), where)
        columns = [column for column in SYMBOL_COLUMNS if column in var]
        symbols = var[columns[0]].astype(object).reset_index(drop=True) if columns else symbols
    symbols = symbols.astype(object)
    nameless = symbols.isna() | (symbols == "")
    if ids is not None:
        symbols = symbols.mask(nameless, ids)
        twice = symbols.duplicated(keep=False) & (symbols != ids)
        symbols = symbols.mask(twice, symbols.astype(str) + "_" + ids)
        if twice.any():
            print(f"{where}: {twice.sum():,} genes share a symbol and get their id in the name")
    repeated = symbols[symbols.duplicated()].unique()
    if len(repeated):
        what = f"{len(repeated):,} gene names occur more than once: {', '.join(repeated[:5])}"
        fix = "give a column gene_id with Ensembl ids in var, or make the names unique"
        problems.append(problem("E232", where, what, fix))
    table = var[[column for column in var if column.startswith("true_")]].copy()
    table.index = pd.Index(symbols.astype(str), name=None)
    if ids is not None:
        table.insert(0, "gene_id", ids.to_numpy())
    return table


def check_barcodes(barcodes: pd.Index, where: str, problems: list[str]) -> None:
    """Find barcodes that occur more than once in a sample."""
    repeated = barcodes[barcodes.duplicated()].unique()
    if len(repeated):
        what = f"{len(repeated):,} barcodes occur more than once, such as {repeated[0]}"
        fix = "give each sample a file of its own under samples:, or make the barcodes unique"
        problems.append(problem("E233", where, what, fix))


def check_orientation(obs, var, where: str, problems: list[str]) -> None:
    """Find a matrix with cells and genes exchanged, by their names."""
    cells, genes = obs.index.astype(str), var.index.astype(str)
    if len(cells) == 0 or len(genes) == 0:
        what = f"has {len(cells):,} cells and {len(genes):,} genes"
        problems.append(problem("E230", where, what, "give a file with counts"))
        return
    known = len(COMMON_GENES & set(cells.str.upper())) >= 3 or cells.str.match(ENSEMBL).mean() > 0.5
    if known or genes.str.contains(BARCODE).mean() > 0.5:
        what = f"cells and genes are exchanged: cell '{cells[0]}', gene '{genes[0]}'"
        fix = "set genes_in_rows (csv, tsv), or transpose the matrix so that rows are cells"
        problems.append(problem("E231", where, what, fix))
