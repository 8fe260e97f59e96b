"""The kernels compile to machine code for a GPU that is not there."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver


class Absent:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)


driver.set_active(Absent())
launch = triton.JITFunction.run
triton.JITFunction.run = lambda self, *a, warmup, **k: print(
    self.__name__, len(launch(self, *a, warmup=True, **k).asm["cubin"])
)

import torch
from sclatent.kernels.cuda import gather, likelihood
from sclatent.kernels.cuda.kinds import Kind, Terms
from sclatent.kernels.cuda.rows import DeviceRows, Standard

known = (torch.ones(4),) * 3
matrix, vector = torch.zeros(4, 20, dtype=torch.bfloat16), torch.zeros(20)
for stored in (torch.int16, torch.int32):
    some = torch.zeros(9, dtype=stored)
    source = DeviceRows(torch.zeros(5, dtype=torch.int64), some, some, torch.ones(4), 20)
    for standard in (None, Standard(torch.ones(()), vector, vector + 1)):
        gather.gather(source, torch.arange(4), standard)
counts = torch.zeros(4, 20, dtype=torch.int16)
table = torch.zeros(3, 20)
for kind, terms in (
    (Kind(theta="none"), {}),
    (Kind(), {"theta": vector}),
    (Kind(), {"theta": table, "theta_row": torch.zeros(4, dtype=torch.int64)}),
    (Kind("exponential", "softplus"), {"theta": matrix, "theta_bias": vector}),
    (Kind("softmax", "clamped", True), {"theta": matrix, "pi": matrix, "pi_bias": vector}),
):
    terms = Terms(torch.ones(4), matrix, vector, **terms)
    likelihood.values(kind, counts, terms)
    likelihood.gradients(kind, counts, terms, known)
"""


def test_kernels_compile_for_a_gpu(root, tmp_path):
    pytest.importorskip("triton", reason="triton is not installed here")
    environment = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    environment |= {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert {name for name, _ in lines} == {"gather_kernel", "value_kernel", "gradient_kernel"}
    assert len(lines) == 14
    assert all(int(size) > 1000 for _, size in lines)
