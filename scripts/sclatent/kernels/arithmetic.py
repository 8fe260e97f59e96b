"""Single-precision arithmetic that the compiler turns into vector instructions.

exp and log follow Cephes (Moshier): a polynomial after taking the power of two out, with a relative
error of about 1e-7. bfloat16 numbers are the upper halves of float32 numbers; NumPy has no such
type, so they travel as uint16.
"""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
from numba import njit, types
from numba.extending import overload

OPTIONS = {
    "fastmath": {"nsz", "contract", "arcp"},
    "error_model": "numpy",
    "nogil": True,
}
"""Options of every kernel: infinities, NaN and the order of sums keep their meaning."""
ONE = np.float32(1)


def source() -> str:
    """Return a hash of all that kernels are compiled from."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


SOURCE = source()


def kernel(function=None, **options):
    """Compile a function when it is first called, and keep the result beside its file.

    What numba keeps it forgets when that file changes, but not when another one does whose
    functions were compiled into it. The hash of all of them stands for the file here. Where there
    is no folder to write to, it is compiled in every process.
    """
    if function is None:
        return lambda function: kernel(function, **options)
    compiled = njit(**OPTIONS | options)(function)
    with contextlib.suppress(RuntimeError):
        compiled.enable_caching()
        compiled._cache._cache_file._source_stamp = SOURCE
    return compiled


@kernel
def clip(x, lowest, highest):
    """Return x between two bounds; NaN stays NaN."""
    x = lowest if x < lowest else x
    return highest if x > highest else x


@kernel
def exp(x):
    """Return e^x of a float32; below -87 and above 88 it stays at the value there."""
    x = clip(x, np.float32(-87.0), np.float32(88.0))
    power = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    scale = np.int32(np.int32(np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + ONE) * scale


@kernel
def log(x):
    """Return log x of a float32, x > 0 and not subnormal."""
    bits = np.float32(x).view(np.int32)
    power = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = np.int32(bits - np.int32(power << np.int32(23))).view(np.float32) - ONE
    p = np.float32(7.0376836292e-2)
    p = p * f - np.float32(1.1514610310e-1)
    p = p * f + np.float32(1.1676998740e-1)
    p = p * f - np.float32(1.2420140846e-1)
    p = p * f + np.float32(1.4249322787e-1)
    p = p * f - np.float32(1.6668057665e-1)
    p = p * f + np.float32(2.0000714765e-1)
    p = p * f - np.float32(2.4999993993e-1)
    p = p * f + np.float32(3.3333331174e-1)
    e = np.float32(power)
    y = f * f * f * p - e * np.float32(2.12194440e-4) - np.float32(0.5) * f * f
    return f + y + e * np.float32(0.693359375)


@kernel
def softplus_and_slope(x):
    """Return log(1 + e^x) and its derivative 1 / (1 + e^-x)."""
    small = exp(-abs(x))
    more = ONE + small
    one_over = ONE / more
    positive = x > np.float32(0)
    value = log(more) + (small - (more - ONE)) * one_over  # log1p(small)
    return value + (x if positive else np.float32(0)), one_over * (ONE if positive else small)


@kernel(fastmath={"nsz", "contract", "reassoc"})
def total(row):
    """Return the sum of a float32 row, taken in any order."""
    result = np.float32(0)
    for g in range(len(row)):
        result += row[g]
    return result


@kernel
def ordered(x):
    """Return an int32 for each float32 so that they have the same order."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@kernel
def largest(row):
    """Return the largest value of a float32 row, NaN where there is one.

    Integers are compared, since the compiler makes vector instructions of that only.
    """
    found = np.int32(-(2**31))
    for g in range(len(row)):
        key = ordered(row[g])
        found = key if key > found else found
    bits = np.int32(found ^ np.int32(np.int32(found >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return bits.view(np.float32)


def widen(x):
    """Return a stored number as float32: a uint16 holds a bfloat16."""


@overload(widen, inline="always")
def _widen(x):
    if isinstance(x, types.Integer):
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def store(matrix, row, column, value):
    """Put a float32 into a matrix of float32, or rounded to even into one of bfloat16."""


@overload(store, inline="always")
def _store(matrix, row, column, value):
    if isinstance(matrix.dtype, types.Integer):

        def to_bfloat16(matrix, row, column, value):
            bits = np.float32(value).view(np.uint32)
            odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd)
            matrix[row, column] = np.uint16(np.uint32(rounded >> np.uint32(16)))

        return to_bfloat16

    def to_float32(matrix, row, column, value):
        matrix[row, column] = value

    return to_float32
