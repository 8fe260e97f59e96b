import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.data.stored import GAP, StoredCounts, write_counts
from sclatent.errors import InputError


def draw_counts(n_cells: int, largest: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    dense = random.poisson(0.3, (n_cells, 40)) * random.choice([1, largest], (n_cells, 40))
    dense[:: max(1, n_cells // 5)] = 0
    return dense


def store(folder, *parts: np.ndarray) -> StoredCounts:
    write_counts(folder, (compact(csr_matrix(part)).block for part in parts), parts[0].shape[1])
    return StoredCounts(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    dense = draw_counts(3000)
    stored = store(tmp_path_factory.mktemp("counts"), dense[:1000], dense[1000:])
    return stored, compact(csr_matrix(dense))


def test_stored_counts_are_those_in_memory(both):
    stored, compacted = both
    assert stored.shape == compacted.shape
    assert np.array_equal(stored.library_size, compacted.library_size)
    assert (stored.to_csr() != compacted.to_csr()).nnz == 0
    rows = np.arange(0, 3000, 7)
    for one, other in zip(stored.moments(rows), compacted.moments(rows), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(stored.blocks(rows, 100), compacted.blocks(rows, 100), strict=True):
        assert (one != other).nnz == 0


@given(st.lists(st.integers(0, 2999), max_size=20), st.integers(1, 400))
def test_any_cells_come_in_the_order_asked_for(both, rows, step):
    stored, compacted = both
    rows = np.r_[rows, np.arange(2999, 0, -step)].astype(int)
    for one, other in zip(stored.take(rows), compacted.take(rows), strict=True):
        assert np.array_equal(one, other)
    pool, some = stored.read(rows), rows[::2]
    assert np.array_equal(pool.take(some).values, compacted.take(some).values)
    assert np.array_equal(pool.totals(some), compacted.totals(some))


def test_no_cells_are_none(both):
    assert both[0][np.zeros(0, int)].shape == (0, 40)


def test_cells_far_apart_are_not_read_with_those_between(both):
    stored, _ = both
    rows = np.array([0, 1, 3 + GAP])
    assert stored.read(rows).rows.tolist() == rows.tolist()
    assert stored.read(rows - [0, 0, 1]).rows.tolist() == list(range(3 + GAP))


def test_a_late_large_value_widens_those_before(tmp_path):
    parts = [draw_counts(50), draw_counts(50, 70_000, seed=1), draw_counts(50)]
    stored = store(tmp_path, *parts)
    assert stored.take(np.array([0])).values.dtype == np.int32
    assert np.array_equal(stored.to_csr().toarray(), np.concatenate(parts))
    assert not list(tmp_path.glob("*.narrow"))


def test_the_files_may_lose_their_names_while_they_are_read(tmp_path):
    dense = draw_counts(100)
    stored = store(tmp_path, dense)
    for path in tmp_path.iterdir():
        path.unlink()
    assert np.array_equal(stored[np.arange(100)].toarray(), dense)


def test_the_files_are_closed_with_the_counts(tmp_path):
    before = len(os.listdir("/dev/fd"))
    stored = store(tmp_path, draw_counts(10))
    assert len(os.listdir("/dev/fd")) > before
    del stored
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("name", ["indptr", "genes", "values", "library_size"])
def test_a_changed_file_is_refused(tmp_path, name):
    store(tmp_path, draw_counts(20))
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: it is not what was written"):
        StoredCounts(tmp_path)


def test_a_folder_that_was_not_finished_is_refused(tmp_path):
    def broken():
        yield compact(csr_matrix(draw_counts(20))).block
        raise OSError("the disk is gone")

    store(tmp_path, draw_counts(20))
    with pytest.raises(OSError, match="gone"):
        write_counts(tmp_path, broken(), 40)
    with pytest.raises(InputError, match=r"no counts\.json"):
        StoredCounts(tmp_path)
