import errno
import tempfile

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix

from sclatent import files
from sclatent.data.compact import CompactCounts, compact
from sclatent.data.stored import StoredCounts
from sclatent.data.stream import ahead, cut, hold, read_blocks
from sclatent.errors import InputError

DENSE = np.random.default_rng(0).poisson(0.4, (60, 12))
DENSE[[0, 7, 8, 59]] = 0


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "cells.h5ad"
    files.write_h5ad(path, anndata.AnnData(csr_matrix(DENSE.astype(np.int32))))
    return path


@pytest.mark.parametrize("n_counts", [1, 20, 10_000])
@pytest.mark.parametrize("chosen", [[3, 0, 11], [], list(range(12))])
def test_blocks_hold_the_chosen_genes_in_their_order(path, n_counts, chosen):
    chosen = np.array(chosen, dtype=int)
    blocks = list(read_blocks(path, chosen, n_counts))
    assert np.array_equal(np.concatenate([b.to_csr().toarray() for b in blocks]), DENSE[:, chosen])
    for block in blocks:
        assert block.to_csr().has_canonical_format
        assert block.values.all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 25))
def test_runs_of_cells_are_as_long_as_they_may_be(lengths, n_counts):
    indptr = np.r_[0, np.cumsum(lengths)]
    runs = list(cut(indptr, n_counts))
    assert [cell for run in runs for cell in range(run.start, run.stop)] == list(
        range(len(lengths))
    )
    for run in runs:
        assert indptr[run.stop] - indptr[run.start] <= n_counts or run.stop - run.start == 1
        if run.stop < len(lengths):
            assert indptr[run.stop + 1] - indptr[run.start] > n_counts


def test_another_form_of_matrix_is_refused(tmp_path):
    anndata.AnnData(csc_matrix(DENSE.astype(np.int32))).write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="not a matrix in compressed sparse rows"):
        list(read_blocks(tmp_path / "cells.h5ad", np.arange(3)))


def split_up(n: int = 6):
    return (compact(csr_matrix(part)).block for part in np.array_split(DENSE, n))


@pytest.mark.parametrize(
    ("memory_gb", "kind"), [(1, CompactCounts), (5e-7, StoredCounts), (0, StoredCounts)]
)
def test_counts_above_the_budget_are_held_on_disk(tmp_path, monkeypatch, memory_gb, kind):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    counts = hold(split_up(), 12, memory_gb)
    assert type(counts) is kind
    assert counts.on_disk == (kind is StoredCounts)
    assert np.array_equal(counts.to_csr().toarray(), DENSE)
    assert np.array_equal(counts.library_size, DENSE.sum(1))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sclatent.data.stream.write_counts", full)
    with pytest.raises(InputError, match="tmpdir="):
        hold(split_up(), 12, 0)


def test_results_come_in_order_and_one_ahead():
    made = []

    def call(number):
        made.append(number)
        return number

    results = ahead(lambda number=number: call(number) for number in range(5))
    assert next(results) == 0
    assert set(made) <= {0, 1}
    assert list(results) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead([])) == []


def test_an_error_in_the_thread_arrives():
    def fail():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        list(ahead([fail]))
