"""Cells with their counts of chosen genes, as models, baselines and scores read them.

Letters for shapes: B cells, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from sclatent import files
from sclatent.data.compact import Counts
from sclatent.data.store import join_splits, positions
from sclatent.data.stream import hold, read_blocks

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame, Index


@dataclass(frozen=True)
class ChosenCounts:
    """Cells with their counts of chosen genes, named as in an AnnData.

    Attributes
    ----------
    X
        (B, G), in memory or on disk; some rows of it are an int32 CSR matrix.
    obs, var, uns
        As in the file, with the splits in obs where asked.
    """

    X: Counts
    obs: DataFrame
    var: DataFrame
    uns: dict

    @property
    def n_obs(self) -> int:
        """Number of cells, B."""
        return self.X.shape[0]

    @property
    def obs_names(self) -> Index:
        """Names of the cells."""
        return self.obs.index

    @property
    def var_names(self) -> Index:
        """Names of the genes."""
        return self.var.index

    def to_anndata(self) -> AnnData:
        """Return the same as an AnnData, with all counts in memory as int32."""
        import anndata

        return anndata.AnnData(self.X.to_csr(), obs=self.obs, var=self.var, uns=self.uns)


def read_counts(
    path: str | PathLike,
    genes: str | PathLike,
    splits: str | PathLike | None = None,
    memory_gb: float = 4.0,
) -> ChosenCounts:
    """Read the counts of chosen genes; those of the others pass by in blocks.

    Parameters
    ----------
    path
        An h5ad as for `read_cells`.
    genes
        A table with a column `gene`; X keeps these genes, in the order of the table.
    splits
        As for `read_cells`.
    memory_gb
        Counts of the chosen genes that take more than this are held on disk, as `hold` says.

    Raises
    ------
    InputError
        When a chosen gene or the split of a cell is missing.
    """
    import h5py
    from anndata.io import read_elem

    with h5py.File(files.verified(path)) as file:
        obs, var, uns = (read_elem(file[name]) for name in ("obs", "var", "uns"))
    names = files.read_table(genes)["gene"].to_numpy()
    chosen = positions(var.index, names, genes, path, "gene")
    join_splits(obs, splits, path)
    counts = hold(read_blocks(path, chosen), len(chosen), memory_gb)
    return ChosenCounts(counts, obs, var.iloc[chosen], uns)
