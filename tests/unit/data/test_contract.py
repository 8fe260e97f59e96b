"""Raw counts pass in any form; anything else is refused with place, number and example."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from sclatent.data import blocks, contract
from sclatent.data.content import Content

CELLS = [f"c{i}" for i in range(5)]
GENES = [f"g{i}" for i in range(4)]
COUNTS = np.arange(20).reshape(5, 4) % 7


def content(**matrices):
    obs, var = pd.DataFrame(index=CELLS), pd.DataFrame(index=GENES)
    readers = {name: (lambda m: lambda: (m, var))(matrix) for name, matrix in matrices.items()}
    return Content("file", obs, readers)


def choose(layer=None, **matrices):
    problems = []
    counts, var = contract.choose_counts(content(**matrices), layer, problems)
    assert (counts is None) == bool(problems)
    return counts and counts.to_csr(), var, problems


def spoilt(*values, dtype=float):
    matrix = COUNTS.astype(dtype)
    for place, value in enumerate(values):
        matrix[1 + place, 2] = value
    return matrix


counts_arrays = arrays.arrays(np.int64, (5, 4), elements=st.integers(0, 2**24) | st.integers(0, 3))


@settings(max_examples=30, deadline=None)
@given(counts_arrays, st.sampled_from(["<f4", "f8", "i4", "i8", "u4", "u8"]), st.booleans())
def test_counts_of_any_type_and_form_become_the_same_canonical_matrix(values, dtype, dense):
    for form in (
        (np.asarray,) if dense else (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array)
    ):
        counts, _, _ = choose(X=form(values.astype(dtype)))
        np.testing.assert_array_equal(counts.toarray(), values)
        assert counts.dtype == np.int32
        assert counts.has_canonical_format
        assert counts.nnz == np.count_nonzero(values)


@settings(max_examples=30, deadline=None)
@given(
    counts_arrays,
    st.integers(0, 4),
    st.integers(0, 3),
    st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.5, 2.0**31, 1e-3]),
)
def test_one_bad_value_anywhere_is_found_with_its_cell_and_gene(values, cell, gene, bad):
    matrix = values.astype(float)
    matrix[cell, gene] = bad
    _, _, problems = choose(X=matrix)
    assert len(problems) == 1
    assert f"for cell c{cell}, gene g{gene}" in problems[0]
    assert "1 of " in problems[0]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "are NaN"),
        (np.inf, "are infinite"),
        (-3, "are negative"),
        (1.386, "are not whole numbers, such as 1.386"),
        (2.0**31, "are too large"),
    ],
)
def test_each_kind_of_bad_value_has_its_words(value, words):
    _, _, problems = choose(X=spoilt(value))
    assert words in problems[0]
    assert problems[0].split(" ", 1)[1].startswith("file X: 1 of 17 stored values (5.88 %)")


def test_all_kinds_are_reported_in_one_pass():
    _, _, problems = choose(X=spoilt(np.nan, -1, 0.5))
    assert len(problems) == 3


def test_bad_values_beyond_the_first_block_are_found(monkeypatch):
    monkeypatch.setattr(blocks, "VALUES", 3)
    _, _, problems = choose(X=spoilt(2, 3, 0.5, 0.25))
    assert "2 of " in problems[0]
    assert "for cell c3, gene g2" in problems[0]


def test_float32_counts_beyond_exactness_are_refused_and_float64_ones_are_not():
    assert choose(X=spoilt(2**24 + 2, dtype=np.float32))[2]
    assert choose(X=spoilt(2**24, dtype=np.float32))[0] is not None
    assert choose(X=spoilt(2**24 + 1))[0].max() == 2**24 + 1


def test_counts_that_overflow_an_int32_are_refused():
    assert "are too large" in choose(X=spoilt(2**31, dtype=np.int64))[2][0]
    assert choose(X=spoilt(2**31 - 1, dtype=np.int64))[0].max() == 2**31 - 1


def test_booleans_and_negative_zeros_are_counts():
    np.testing.assert_array_equal(choose(X=COUNTS > 2)[0].toarray(), COUNTS > 2)
    matrix = sparse.csr_matrix(COUNTS.astype(float))
    matrix.data[0] = -0.0
    assert choose(X=matrix)[0].nnz == matrix.nnz - 1


def test_unsorted_and_duplicate_entries_and_stored_zeros_give_the_canonical_matrix():
    matrix = sparse.csr_matrix(
        ([2, 1, 0, 3], [3, 1, 0, 1], [0, 4, 4, 4, 4, 4]), shape=(5, 4), dtype=float
    )
    counts, _, _ = choose(X=matrix)
    assert counts.data.tolist() == [4, 2]
    assert counts.indices.tolist() == [1, 3]


def test_a_negative_entry_that_a_duplicate_would_hide_is_found():
    matrix = sparse.csr_matrix(([2, -1], [1, 1], [0, 2, 2, 2, 2, 2]), shape=(5, 4))
    assert "are negative" in choose(X=matrix)[2][0]


def test_raw_is_used_and_named_when_x_is_not_counts(capsys):
    counts, _, _ = choose(X=np.log1p(COUNTS), raw=COUNTS)
    np.testing.assert_array_equal(counts.toarray(), COUNTS)
    assert "X does not hold counts" in (out := capsys.readouterr().out)
    assert "raw does and is used" in out


def test_a_layer_that_holds_counts_is_pointed_at_but_not_guessed():
    _, _, problems = choose(X=np.log1p(COUNTS), scaled=COUNTS - 2.5, counts=COUNTS)
    assert problems[0].endswith("Fix: set layer: counts, which holds counts")
    assert choose("counts", X=np.log1p(COUNTS), counts=COUNTS)[0] is not None
    _, _, problems = choose("scaled", X=COUNTS, scaled=COUNTS - 2.5)
    assert "file scaled: " in problems[0]
    assert "set layer: X" in problems[0]


def test_a_file_without_any_counts_says_so():
    assert "no other matrix of this one holds them" in choose(X=COUNTS / 3, raw=COUNTS / 2)[2][0]


def test_a_missing_layer_names_the_nearest():
    assert "did you mean 'counts'" in choose("count", X=COUNTS, counts=COUNTS)[2][0]
    assert "there is no X" in choose(counts=COUNTS)[2][0]


def test_text_and_misshapen_matrices_are_refused():
    assert "not numbers" in choose(X=COUNTS.astype(str))[2][0]
    assert "its shape is (5, 3)" in choose(X=COUNTS[:, :3])[2][0]


def name(index, **columns):
    problems = []
    table = contract.name_genes(pd.DataFrame(columns, index=index), "file", problems)
    return table, problems


def test_symbols_that_occur_twice_get_their_id_and_others_stay():
    ids = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    for table, problems in (
        name(["A", "B", "A"], gene_ids=ids),
        name(ids, feature_name=pd.Categorical(["A", "B", "A"])),
    ):
        assert not problems
        assert list(table.index) == [f"A_{ids[0]}", "B", f"A_{ids[2]}"]
        assert list(table["gene_id"]) == ids


def test_symbols_that_occur_twice_without_ids_are_refused_by_name():
    _, problems = name(["A", "B", "A"])
    assert "1 gene names occur more than once: A" in problems[0]
    assert "gene_id" in problems[0]


def test_genes_without_a_symbol_are_named_by_their_id():
    ids = ["ENSG00000000001", "ENSG00000000002"]
    assert list(name(ids, gene_name=["A", None])[0].index) == ["A", ids[1]]
    assert list(name(ids)[0].index) == ids


def test_the_truth_of_the_simulator_stays_and_other_columns_of_genes_go():
    table, _ = name(["A", "B"], true_theta=[1.0, 2.0], highly_variable=[True, False])
    assert list(table.columns) == ["true_theta"]


def test_duplicate_barcodes_are_counted_with_an_example():
    problems = []
    contract.check_barcodes(pd.Index(["a", "b", "a", "a"]), "file", problems)
    assert "1 barcodes occur more than once, such as a" in problems[0]


@pytest.mark.parametrize(
    ("cells", "genes"),
    [
        (["ENSG00000000001", "ENSG00000000002.3"], ["x", "y"]),
        (["ENSMUSG00000000001", "ENSMUSG00000000002"], ["x", "y"]),
        (["p", "q"], ["AAACCCAAGAAACACT-1", "AAACCCAAGAAACCAT-1"]),
        (["Actb", "Gapdh", "B2m", "Cd3e"], ["x", "y"]),
    ],
)
def test_a_transposed_matrix_is_found_by_its_names(cells, genes):
    problems, frames = [], [pd.DataFrame(index=names) for names in (cells, genes)]
    contract.check_orientation(*frames, "file", problems)
    assert "cells and genes are exchanged" in problems[0]
    problems.clear()
    contract.check_orientation(*frames[::-1], "file", problems)
    assert not problems


def test_an_empty_matrix_is_refused():
    problems = []
    contract.check_orientation(pd.DataFrame(index=[]), pd.DataFrame(index=["A"]), "file", problems)
    assert "has 0 cells and 1 genes" in problems[0]
