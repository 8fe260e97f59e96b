"""The files that rules share: cells with their counts, a latent, denoised expression.

Letters for shapes: B cells, G genes, L latent dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from sclatent import files
from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

ROWS = 64
"""Cells of a compressed piece of expression."""
UNKNOWN = "Unknown"
"""The label of a cell that has none."""

QC_METRICS = (
    *("total_counts", "n_genes_by_counts", "pct_counts_mt", "pct_counts_ribo"),
    "doublet_score",
)
"""The columns of obs that quality control writes."""


def read_cells(path: str | PathLike, splits: str | PathLike | None = None) -> AnnData:
    """Read the counts of all genes, with the split of each cell where asked.

    Parameters
    ----------
    path
        An h5ad with raw counts in X (B, G), obs `batch` and `cell_type`, and the columns that
        `covariates` names.
    splits
        A table with columns `cell`, `cells`, `labels`; obs gains the categories `cells_split`
        and `labels_split`.

    Returns
    -------
    AnnData
        X is an int32 CSR matrix, its rows in the order of the file.

    Raises
    ------
    InputError
        When the split of a cell is missing.
    """
    import anndata

    adata = anndata.read_h5ad(files.verified(path))
    join_splits(adata.obs, splits, path)
    adata.X = adata.X.tocsr().astype(np.int32, copy=False)
    adata.X.sort_indices()
    return adata


def join_splits(obs: DataFrame, splits: str | PathLike | None, path: str | PathLike) -> None:
    """Add the split of each cell to the table of the cells of `path`, where there is one."""
    if splits is None:
        return
    table = files.read_table(splits)
    rows = positions(table["cell"], obs.index, path, splits, "cell")
    for column in ("cells", "labels"):
        obs[f"{column}_split"] = table[column].to_numpy()[rows]
        obs[f"{column}_split"] = obs[f"{column}_split"].astype("category")


def covariates(adata: AnnData) -> tuple[list[str], list[str]]:
    """Return the names of the categorical and of the continuous covariates.

    They are columns of obs: categories of text, and finite float64 values; no cell lacks one.
    Both lists are empty for a dataset that names none, also in a file that does not say so.
    """
    named = adata.uns.get("covariates", {})
    categorical, continuous = (
        [str(column) for column in np.ravel(named.get(kind, []))]
        for kind in ("categorical", "continuous")
    )
    return categorical, continuous


def read_obs(path: str | PathLike, splits: str | PathLike | None = None) -> DataFrame:
    """Read the table of the cells of an h5ad without the counts, with splits as `read_cells`."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(files.verified(path)) as file:
        obs = read_elem(file["obs"])
    join_splits(obs, splits, path)
    return obs


def read_genes(path: str | PathLike) -> list[str]:
    """Read the names of the genes of an h5ad."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(files.verified(path)) as file:
        return list(read_elem(file["var"]).index)


def write_latent(path: str | PathLike, values: np.ndarray, cells) -> None:
    """Write a latent: float32 values (B, L), named cells, dimensions "1" to "L".

    Raises
    ------
    ValueError
        When a value is not finite or the shapes disagree; a latent is never stored broken.
    """
    import anndata
    import pandas as pd

    values = np.ascontiguousarray(values, dtype=np.float32)
    if values.ndim != 2 or len(values) != len(cells):
        raise ValueError(f"a latent of shape {values.shape} does not fit {len(cells)} cells")
    if not np.isfinite(values).all():
        n_broken = int((~np.isfinite(values)).any(axis=1).sum())
        raise ValueError(f"the latent of {n_broken} of {len(values)} cells is not finite")
    obs = pd.DataFrame(index=pd.Index(np.asarray(cells, dtype=object)))
    var = pd.DataFrame(index=[str(1 + dimension) for dimension in range(values.shape[1])])
    files.write_h5ad(path, anndata.AnnData(values, obs=obs, var=var))


def read_latent(path: str | PathLike, cells=None) -> np.ndarray:
    """Read a latent as a float32 array (B, L), in the order of `cells` when these are given.

    Raises
    ------
    InputError
        When the file does not hold exactly the cells asked for.
    """
    import anndata

    latent = anndata.read_h5ad(files.verified(path))
    values = np.asarray(latent.X, dtype=np.float32)
    if cells is None:
        return values
    rows = positions(latent.obs_names, cells, "the cells asked for", path, "cell")
    if len(rows) != len(values):
        what = f"it holds {len(values):,} cells, but {len(rows):,} are asked for"
        raise InputError(problem("E324", str(path), what, "delete the file and run again"))
    return values[rows]


def write_expression(
    path: str | PathLike, blocks: Iterable[np.ndarray], cells, genes, made: dict
) -> None:
    """Write denoised expression, a block at a time: float32 values (B, G), named cells and genes.

    Parameters
    ----------
    path
        An h5ad; `uns["sclatent"]` says in JSON what X is and how it was made.
    blocks
        Some cells after the other, (n, G), in counts.
    cells, genes
        Names.
    made
        How it was made; JSON values only.

    Raises
    ------
    ValueError
        When a value is not finite, or the blocks hold more or fewer cells than there are names.
    """
    import anndata
    import h5py
    import pandas as pd

    obs, var = (pd.DataFrame(index=pd.Index(np.asarray(x, dtype=object))) for x in (cells, genes))
    adata = anndata.AnnData(obs=obs, var=var)
    content = {"X": "denoised counts; for looking, not for hypothesis tests", **made}
    adata.uns["sclatent"] = json.dumps(content, sort_keys=True, ensure_ascii=False)
    n_cells, n_genes = adata.shape
    layout = {"chunks": (min(ROWS, n_cells), n_genes), "compression": "gzip", "compression_opts": 4}
    with files.safely(path, hashed=True, n_bytes=2 * n_cells * n_genes) as partial:
        adata.write_h5ad(partial, compression="gzip", compression_opts=4)
        with h5py.File(partial, "r+") as file:
            values, at = file.create_dataset("X", adata.shape, np.float32, **layout), 0
            values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for block in blocks:
                if n_broken := np.count_nonzero(~np.isfinite(block)):
                    raise ValueError(f"{n_broken:,} denoised values are not finite")
                values[at : at + len(block)] = block
                at += len(block)
        if at != n_cells:
            raise ValueError(f"denoised values of {at:,} cells do not fit {n_cells:,} names")


def positions(there, wanted, asker, path, kind: str) -> np.ndarray:
    """Return where each of the `wanted` names stands among those `there`.

    Raises
    ------
    InputError
        When names are missing or not unique; `asker` and `path` name the two files.
    """
    import pandas as pd

    there = pd.Index(np.asarray(there, dtype=object))
    if not there.is_unique:
        example = there[there.duplicated()][0]
        what = f"{kind} '{example}' occurs more than once"
        raise InputError(problem("E324", str(path), what, "delete the file and run again"))
    rows = there.get_indexer(np.asarray(wanted, dtype=object))
    if (rows < 0).any():
        example = np.asarray(wanted, dtype=object)[rows < 0][0]
        what = f"{(rows < 0).sum():,} {kind}s of {asker} are not in it, such as '{example}'"
        raise InputError(problem("E324", str(path), what, "delete both files and run again"))
    return rows
