import shutil
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from sclatent.kernels import arithmetic, likelihood
from sclatent.kernels.arithmetic import exp, largest, log, softplus_and_slope


@njit
def to_bfloat16(values, out):
    for place in range(len(values)):
        arithmetic.store(out, 0, place, values[place])


@njit
def from_bfloat16(bits, out):
    for place in range(len(bits)):
        out[place] = arithmetic.widen(bits[place])


def test_exp_and_log_are_those_of_numpy_to_single_precision():
    x = np.linspace(-86, 87, 4001, dtype=np.float32)
    found = np.array([exp(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=3e-7)
    y = np.exp(x[500:])
    found = np.array([log(value) for value in y])
    np.testing.assert_allclose(found, np.log(y.astype(np.float64)), rtol=3e-7, atol=1e-7)


def test_softplus_and_its_slope_hold_far_out():
    x = np.array([-80, -30, -1e-3, 0, 1e-3, 3, 30, 80], dtype=np.float32)
    value, slope = np.array([softplus_and_slope(number) for number in x]).T
    exact = np.logaddexp(0, x.astype(np.float64))
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6)


def test_nan_stays_nan():
    assert np.isnan(exp(np.float32("nan")))
    assert np.isnan(softplus_and_slope(np.float32("nan"))[0])
    assert np.isnan(largest(np.array([1, np.nan, 3], dtype=np.float32)))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_the_largest_value_is_numpys(values):
    row = np.array(values, dtype=np.float32)
    assert largest(row) == row.max()


def test_bfloat16_is_rounded_as_torch_does():
    values = np.random.default_rng(0).normal(0, 100, 500).astype(np.float32)
    bits = np.empty((1, 500), dtype=np.uint16)
    to_bfloat16(values, bits)
    expected = torch.from_numpy(values).bfloat16()
    assert np.array_equal(bits[0], expected.view(torch.uint16).numpy())
    back = np.empty(500, dtype=np.float32)
    from_bfloat16(bits[0], back)
    assert np.array_equal(back, expected.float().numpy())


def test_what_was_compiled_is_forgotten_when_any_file_of_kernels_changes(tmp_path, monkeypatch):
    assert exp._cache._cache_file._source_stamp == arithmetic.SOURCE
    assert likelihood.count_log_likelihood._cache._cache_file._source_stamp == arithmetic.SOURCE
    folder = tmp_path / "kernels"
    shutil.copytree(Path(arithmetic.__file__).parent, folder, ignore=shutil.ignore_patterns("__*"))
    monkeypatch.setattr(arithmetic, "__file__", str(folder / "arithmetic.py"))
    before = arithmetic.source()
    with open(folder / "rows.py", "a") as file:
        file.write("\n")
    assert arithmetic.source() != before
