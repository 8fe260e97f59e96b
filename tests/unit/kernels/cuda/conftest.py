"""Triton runs in its interpreter where there is no GPU; it must know before it is imported."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def triton_device() -> str:
    """The device on which Triton's kernels run here, or a skip that says why there is none."""
    triton = pytest.importorskip("triton", reason="triton is not installed here")
    if torch.cuda.is_available():
        return "cuda"
    if not triton.knobs.runtime.interpret:
        pytest.skip("triton was imported before its interpreter could be chosen")
    return "cpu"
