import numpy as np
import torch
from scipy.sparse import csr_matrix

from sclatent.data.compact import compact
from sclatent.kernels.operators import LOG1P, array
from sclatent.kernels.rows import spread_logs, spread_standardised

COUNTS = np.array([[0, 3, 0, 70_000], [0, 0, 0, 0], [5_000, 0, 1, 2]])


def block():
    return tuple(compact(csr_matrix(COUNTS)).block[:3])


def test_logs_of_counts_are_spread_to_dense_rows():
    for dtype in (torch.float32, torch.bfloat16):
        out = torch.full(COUNTS.shape, 9.0, dtype=dtype)
        spread_logs(block(), LOG1P, array(out), 0, 3)
        expected = torch.from_numpy(np.log1p(COUNTS)).float().to(dtype)
        torch.testing.assert_close(out, expected)


def test_standardised_logs_are_those_of_numpy():
    size = np.array([2.0, 1.0, 0.5], dtype=np.float32)
    mean, sd = (np.array(x, dtype=np.float32) for x in ([0.1, 1, 0, 3], [1, 2, 0.5, 4]))
    out = torch.empty(COUNTS.shape)
    spread_standardised(block(), size, mean, sd, -mean / sd, out.numpy(), 0, 3)
    expected = (np.log1p(COUNTS / size[:, None]) - mean) / sd
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_only_the_rows_asked_for_are_filled():
    out = torch.full(COUNTS.shape, 9.0)
    spread_logs(block(), LOG1P, out.numpy(), 1, 2)
    assert out[1].eq(0).all()
    assert out[[0, 2]].eq(9).all()
