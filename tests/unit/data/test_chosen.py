import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sclatent import files
from sclatent.data.chosen import read_counts
from sclatent.errors import InputError
from sclatent.training.loader import gather_cells

COUNTS = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [4, 0, 0, 5]], dtype=np.int32)


@pytest.fixture
def folder(tmp_path):
    obs = pd.DataFrame({"batch": ["a", "a", "b"], "age": [1.0, 2.0, 3.0]}, ["c1", "c2", "c3"])
    obs["batch"] = obs["batch"].astype("category")
    var = pd.DataFrame({"n": [1, 2, 3, 4]}, ["g1", "g2", "g3", "g4"])
    adata = anndata.AnnData(csr_matrix(COUNTS), obs=obs, var=var)
    adata.uns["covariates"] = {"categorical": [], "continuous": ["age"]}
    files.write_h5ad(tmp_path / "cells.h5ad", adata)
    files.write_table(tmp_path / "genes.tsv", pd.DataFrame({"gene": ["g4", "g1"], "score": [2, 1]}))
    names = ["train", "validation", "heldout"]
    splits = pd.DataFrame({"cell": ["c3", "c1", "c2"], "cells": names, "labels": names})
    files.write_table(tmp_path / "splits.tsv.gz", splits)
    return tmp_path


@pytest.mark.parametrize("memory_gb", [1, 0])
def test_counts_come_in_the_order_of_the_genes_asked_for(folder, memory_gb):
    cells = read_counts(
        folder / "cells.h5ad", folder / "genes.tsv", folder / "splits.tsv.gz", memory_gb
    )
    assert cells.X.on_disk == (memory_gb == 0)
    assert np.array_equal(cells.X[:].toarray(), COUNTS[:, [3, 0]])
    assert cells.n_obs == 3
    assert list(cells.obs_names) == ["c1", "c2", "c3"]
    assert list(cells.var_names) == ["g4", "g1"]
    assert list(cells.obs["cells_split"]) == ["validation", "heldout", "train"]


def test_models_and_anndata_see_the_same(folder):
    cells = read_counts(folder / "cells.h5ad", folder / "genes.tsv")
    adata = cells.to_anndata()
    assert adata.X.dtype == np.int32
    assert list(adata.var["n"]) == [4, 1]
    one, other = gather_cells(cells), gather_cells(adata)
    assert (one.counts.to_csr() != other.counts.to_csr()).nnz == 0
    assert np.array_equal(one.covariates.values, other.covariates.values)
    assert one.covariates.numbers == ["age"]
    assert np.array_equal(one.batch, other.batch)


def test_a_missing_gene_is_an_error_that_names_it(folder):
    files.write_text(folder / "genes.tsv", "gene\ng1\nnope\n")
    with pytest.raises(InputError, match="such as 'nope'"):
        read_counts(folder / "cells.h5ad", folder / "genes.tsv")
