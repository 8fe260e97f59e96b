import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sclatent.errors import InputError
from sclatent.training.loader import Cells, gather_cells, seen_labels, shuffled, slices, split_rows


@given(st.integers(2, 500), st.integers(2, 130))
def test_no_minibatch_has_a_single_cell_and_none_is_lost(n_cells, size):
    parts = [list(range(part.start, part.stop)) for part in slices(n_cells, size)]
    assert [cell for part in parts for cell in part] == list(range(n_cells))
    assert min(map(len, parts)) >= 2
    assert max(map(len, parts)) <= size + 1


def test_an_epoch_visits_every_row_once():
    rows = np.arange(10, 110)
    parts = list(shuffled(rows, 33, np.random.default_rng(0)))
    assert sorted(np.concatenate(parts)) == list(rows)
    assert parts[0].tolist() != list(range(10, 43))


def test_a_minibatch_holds_the_counts_twice_and_the_library_size():
    counts = csr_matrix(np.array([[0, 3, 1], [0, 0, 0], [5, 0, 2]], dtype=np.int32))
    cells = Cells(counts, np.array([0, 1, 1]), np.array([-1, 0, 1]), ["a", "b"])
    minibatch = cells.take(np.array([0, 1, 2]))
    dense = np.zeros((3, 3))
    entries = minibatch.entries
    dense[entries.row.numpy(), entries.gene.numpy()] = entries.value.numpy()
    assert np.array_equal(dense, counts.toarray())
    assert np.array_equal(minibatch.counts.numpy(), counts.toarray())
    assert minibatch.library_size.ravel().tolist() == [4, 1, 7]
    assert minibatch.batch.tolist() == [[1, 0], [0, 1], [0, 1]]


@pytest.fixture
def adata():
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(list("aabbab")),
            "cell_type": pd.Categorical(["T", "T", "B", "B", "rare", "Unknown"]),
            "cells_split": ["train", "train", "train", "train", "train", "heldout"],
            "labels_split": ["train", "train", "train", "test", "train", "unknown"],
        },
        index=[f"c{number}" for number in range(6)],
    )
    return anndata.AnnData(csr_matrix(np.ones((6, 3), dtype=np.int32)), obs=obs)


def test_only_training_labels_are_seen(adata, capsys):
    codes, classes = seen_labels(adata, min_cells=1)
    assert classes == ["B", "T", "rare"]
    assert codes.tolist() == [1, 1, 0, -1, 2, -1]


def test_too_few_labels_are_an_error_that_says_what_to_do(adata):
    with pytest.raises(InputError, match="leave out of latents what needs labels"):
        seen_labels(adata, min_cells=2)


def test_rows_follow_the_split(adata):
    rows = split_rows(adata)
    assert rows.train.tolist() == [0, 1, 2, 3, 4]
    assert rows.heldout.tolist() == [5]
    assert gather_cells(adata).batches == ["a", "b"]
