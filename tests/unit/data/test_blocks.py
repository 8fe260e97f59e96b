"""Counts come through blocks as they went in, and stay out of memory."""

from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclatent import files
from sclatent.data import blocks
from sclatent.data.blocks import (
    Dataset,
    from_anndata,
    in_memory,
    open_dataset,
    spans,
    stack,
    stored,
    write_dataset,
)
from sclatent.errors import InputError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 40)


@pytest.fixture
def adata():
    counts = sparse.random(50, 12, 0.3, "csr", rng=np.random.default_rng(0))
    counts.data = np.arange(1, counts.nnz + 1)
    full = np.arange(50)[:, None] // 2 != 4  # two cells without counts
    counts = sparse.csr_matrix(counts.multiply(full).astype(np.int32))
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"] * 25)}, [f"c{i}" for i in range(50)])
    table = anndata.AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(12)]))
    table.uns["covariates"] = {"categorical": ["batch"], "continuous": []}
    table.obsm["true_z"] = np.ones((50, 2))
    return table


@pytest.fixture
def path(adata, tmp_path):
    write_dataset(tmp_path / "a.h5ad", from_anndata(adata))
    return tmp_path / "a.h5ad"


def test_spans_hold_whole_rows_up_to_the_bound_and_miss_none():
    indptr = np.r_[0, np.cumsum([10, 0, 30, 1, 90, 0, 0, 40, 5])]
    found = list(spans(indptr))
    assert [start for start, _ in found] == [0, *(stop for _, stop in found)][:-1]
    assert found[-1][1] == 9
    for start, stop in found:
        assert indptr[stop] - indptr[start] <= 40 or stop == start + 1


def test_what_is_written_is_a_file_that_anndata_reads(adata, path):
    found = anndata.read_h5ad(path)
    assert found.X.dtype == np.int32
    assert found.X.has_canonical_format
    assert (found.X != adata.X).nnz == 0
    pd.testing.assert_frame_equal(found.obs, adata.obs)
    np.testing.assert_array_equal(found.obsm["true_z"], adata.obsm["true_z"])
    assert list(found.uns["covariates"]["categorical"]) == ["batch"]


def test_layers_are_written_beside_x(adata, tmp_path):
    counts = in_memory(adata.X)
    halves = counts.map(lambda block: block.astype(np.float32) / 2, np.float32)
    dataset = Dataset(from_anndata(adata).table, halves, {"counts": counts})
    write_dataset(tmp_path / "a.h5ad", dataset)
    found = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert found.X.dtype == np.float32
    np.testing.assert_array_equal(found.X.toarray() * 2, adata.X.toarray())
    np.testing.assert_array_equal(found.layers["counts"].toarray(), adata.X.toarray())
    np.testing.assert_array_equal(
        dataset.to_anndata().layers["counts"].toarray(), found.X.toarray() * 2
    )


def test_equal_counts_give_equal_bytes_whatever_the_blocks(adata, path, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 10**6)
    write_dataset(tmp_path / "b.h5ad", from_anndata(adata))
    assert files.sha256(tmp_path / "b.h5ad") == files.sha256(path)


def test_both_index_arrays_have_64_bits_where_one_needs_them(adata, tmp_path):
    dataset = from_anndata(adata)
    many = replace(dataset.counts, n_values=2**31)
    write_dataset(tmp_path / "a.h5ad", Dataset(dataset.table, many))
    with h5py.File(tmp_path / "a.h5ad") as file:
        assert file["X/indices"].dtype == file["X/indptr"].dtype == np.int64
    assert (anndata.read_h5ad(tmp_path / "a.h5ad").X != adata.X).nnz == 0


def test_no_block_is_larger_than_the_bound(path):
    found = list(stored(path, "X"))
    assert len(found) > 3
    assert all(block.nnz <= 40 for block in found)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_some_rows_and_genes_are_those_of_the_matrix(where, adata, path):
    counts = in_memory(adata.X) if where == "memory" else open_dataset(path).counts
    rows, again = np.arange(50) % 3 == 0, np.arange(17) % 2 == 0
    genes = np.array([5, 0, 11])
    kept = counts.keep(rows, genes)
    assert kept.shape == (17, 3)
    np.testing.assert_array_equal(kept.to_csr().toarray(), adata.X.toarray()[rows][:, genes])
    np.testing.assert_array_equal(
        kept.keep(again).to_csr().toarray(), adata.X.toarray()[rows][again][:, genes]
    )
    assert counts.keep(np.zeros(50, dtype=bool)).to_csr().shape == (0, 12)


def test_joined_counts_lie_one_below_the_other(adata):
    joined = stack([in_memory(adata.X[:20]), in_memory(adata.X[20:])])
    rows = np.arange(50) % 4 == 1
    assert (joined.to_csr() != adata.X).nnz == 0
    assert (joined.keep(rows).to_csr() != adata.X[rows]).nnz == 0


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("indptr", lambda values: values[::-1].copy()),
        ("indptr", lambda values: values[:-1]),
        ("data", lambda values: values[:-1]),
        ("indices", lambda values: values + 12),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(path, part, spoil):
    with h5py.File(path, "r+") as file:
        values = spoil(file[f"X/{part}"][:])
        del file[f"X/{part}"]
        file[f"X/{part}"] = values
    files.sidecar(path).unlink()
    with pytest.raises(InputError, match=r"a\.h5ad .* cannot be read"):
        stored(path, "X").to_csr()


def test_an_error_while_writing_leaves_the_previous_file(adata, path):
    before = files.sha256(path)

    def fail(block):
        raise RuntimeError

    dataset = from_anndata(adata)
    broken = Dataset(dataset.table, dataset.counts.map(fail, np.int32))
    with pytest.raises(RuntimeError):
        write_dataset(path, broken)
    assert files.sha256(path) == before
