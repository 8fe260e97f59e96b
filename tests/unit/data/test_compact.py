import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.data.compressed import BLOCK, join


@given(arrays(np.int32, (6, 5), elements=st.sampled_from([0, 0, 1, 7, 65_535, 65_536])))
def test_compact_counts_are_the_same_counts(dense):
    counts = compact(csr_matrix(dense))
    assert np.array_equal(counts.to_csr().toarray(), dense)
    assert counts.library_size.tolist() == dense.sum(1).tolist()
    rows = np.array([4, 0, 0, 5])
    assert np.array_equal(counts[rows].toarray(), dense[rows])
    joined = np.concatenate([block.toarray() for block in counts.blocks(rows, 3)])
    assert np.array_equal(joined, dense[rows])


def test_sums_over_blocks_are_those_of_the_matrix():
    random = np.random.default_rng(0)
    dense = random.poisson(0.5, (2 * BLOCK + 7, 5)) * random.choice([1, 50_000], (2 * BLOCK + 7, 5))
    dense[:, 3] = 0
    counts, rows = compact(csr_matrix(dense)), np.flatnonzero(random.random(len(dense)) < 0.8)
    moments = counts.moments(rows)
    assert np.array_equal(moments.total, dense[rows].sum(0))
    assert np.array_equal(moments.squares, np.square(dense[rows]).sum(0))
    assert np.array_equal(counts.library_size, dense.sum(1))


@given(st.lists(st.integers(0, 4), max_size=4), st.sampled_from([1, 65_536]))
def test_blocks_make_one_whole(sizes, largest):
    parts = [
        np.arange(3 * n).reshape(n, 3) % 2 * (largest if i % 2 else 1) for i, n in enumerate(sizes)
    ]
    whole = join((compact(csr_matrix(part)).block for part in parts), 3)
    expected = np.concatenate([np.zeros((0, 3)), *parts])
    assert np.array_equal(whole.to_csr().toarray(), expected)
    assert whole.values.dtype == (np.int32 if expected.max(initial=0) > 65_535 else np.uint16)


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.int32)])
def test_values_above_16_bits_fall_back_to_32(largest, dtype):
    assert compact(csr_matrix([[1, largest]])).block.values.dtype == dtype


@pytest.mark.parametrize(("n_genes", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.int32)])
def test_so_do_gene_numbers(n_genes, dtype):
    counts = csr_matrix(([3], ([0], [n_genes - 1])), shape=(1, n_genes))
    block = compact(counts).block
    assert block.genes.dtype == dtype
    assert block.genes.tolist() == [n_genes - 1]


@pytest.mark.parametrize("value", [-1, 0.5, 2.0**31, np.nan])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match="counts"):
        compact(csr_matrix([[1.0, value]]))


def test_stored_zeros_and_duplicates_are_summed_away():
    counts = csr_matrix(([1, 2, 0], [1, 1, 0], [0, 3]), shape=(1, 3))
    assert compact(counts).block.values.tolist() == [3]
    assert counts.nnz == 3
