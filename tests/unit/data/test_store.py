import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sclatent import files
from sclatent.data.store import (
    covariates,
    read_cells,
    read_genes,
    read_latent,
    read_obs,
    write_expression,
    write_latent,
)
from sclatent.errors import InputError

CELLS = ["c1", "c2", "c3"]


@pytest.fixture
def stored(tmp_path):
    counts = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [4, 0, 0, 5]], dtype=np.int32)
    obs = pd.DataFrame({"batch": ["a", "a", "b"], "cell_type": ["t", "Unknown", "t"]}, CELLS)
    var = pd.DataFrame(index=["g1", "g2", "g3", "g4"])
    adata = anndata.AnnData(sp.csr_matrix(counts), obs=obs.astype("category"), var=var)
    files.write_h5ad(tmp_path / "cells.h5ad", adata)
    return tmp_path, counts


def test_counts_come_back_as_int32_csr(stored):
    folder, counts = stored
    adata = read_cells(folder / "cells.h5ad")
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.int32
    assert adata.X.has_sorted_indices
    np.testing.assert_array_equal(adata.X.toarray(), counts)
    assert read_genes(folder / "cells.h5ad") == list(adata.var_names)


def test_splits_are_joined_by_name(stored):
    folder, _ = stored
    table = pd.DataFrame(
        {
            "cell": ["c3", "c1", "c2"],
            "cells": ["heldout", "train", "validation"],
            "labels": ["test", "train", "unknown"],
        }
    )
    files.write_table(folder / "splits.tsv.gz", table)
    adata = read_cells(folder / "cells.h5ad", splits=folder / "splits.tsv.gz")
    for obs in (adata.obs, read_obs(folder / "cells.h5ad", folder / "splits.tsv.gz")):
        assert list(obs["cells_split"]) == ["train", "validation", "heldout"]
        assert list(obs["labels_split"]) == ["train", "unknown", "test"]


@pytest.mark.parametrize(("one", "other"), [([], []), (["sex"], []), (["a b", "ü"], ["age"])])
def test_the_names_of_covariates_come_back_as_plain_lists(stored, one, other):
    folder, _ = stored
    adata = read_cells(folder / "cells.h5ad")
    assert covariates(adata) == ([], [])
    adata.uns["covariates"] = {"categorical": one, "continuous": other}
    assert covariates(adata) == (one, other)
    files.write_h5ad(folder / "again.h5ad", adata)
    again = covariates(read_cells(folder / "again.h5ad"))
    assert again == (one, other)
    assert all(type(name) is str for names in again for name in names)


def test_a_latent_comes_back_in_any_order(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_latent(tmp_path / "latent.h5ad", values, CELLS)
    np.testing.assert_array_equal(read_latent(tmp_path / "latent.h5ad"), values)
    ordered = read_latent(tmp_path / "latent.h5ad", ["c3", "c1", "c2"])
    np.testing.assert_array_equal(ordered, values[[2, 0, 1]])
    assert ordered.dtype == np.float32
    assert list(anndata.read_h5ad(tmp_path / "latent.h5ad").var_names) == ["1", "2"]


@pytest.mark.parametrize("cells", [["c1", "c2", "c4"], ["c1", "c2"]])
def test_other_cells_than_those_of_the_latent_are_an_error(tmp_path, cells):
    write_latent(tmp_path / "latent.h5ad", np.zeros((3, 2)), CELLS)
    with pytest.raises(InputError, match=r"c4|3 cells, but 2"):
        read_latent(tmp_path / "latent.h5ad", cells)


def test_a_broken_latent_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="1 of 3 cells is not finite"):
        write_latent(tmp_path / "latent.h5ad", [[0, 1], [np.nan, 0], [1, 1]], CELLS)
    with pytest.raises(ValueError, match="does not fit"):
        write_latent(tmp_path / "latent.h5ad", np.zeros((2, 2)), CELLS)
    assert not list(tmp_path.iterdir())


def test_equal_latents_give_equal_bytes(tmp_path):
    for name in ("one.h5ad", "two.h5ad"):
        write_latent(tmp_path / name, np.ones((3, 2)), CELLS)
    assert files.sha256(tmp_path / "one.h5ad") == files.sha256(tmp_path / "two.h5ad")


def test_denoised_expression_says_what_it_is_and_how_it_was_made(tmp_path):
    values = np.arange(6, dtype=float).reshape(2, 3)
    made = {"latent": "scvi", "batch": "average"}
    write_expression(
        tmp_path / "e.h5ad", [values[:1], values[1:]], ["b", "a"], ["x", "y", "z"], made
    )
    adata = anndata.read_h5ad(tmp_path / "e.h5ad")
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, values)
    assert list(adata.obs_names) == ["b", "a"]
    assert list(adata.var_names) == ["x", "y", "z"]
    content = json.loads(adata.uns["sclatent"])
    assert "not for hypothesis tests" in content["X"]
    assert content["batch"] == "average"
    with pytest.raises(ValueError, match="1 denoised values are not finite"):
        write_expression(tmp_path / "e.h5ad", [np.array([[np.nan]])], ["a"], ["x"], made)
    with pytest.raises(ValueError, match="1 cells do not fit 2 names"):
        write_expression(tmp_path / "e.h5ad", [values[:1]], ["b", "a"], ["x", "y", "z"], made)
    assert np.array_equal(anndata.read_h5ad(tmp_path / "e.h5ad").X, values)
