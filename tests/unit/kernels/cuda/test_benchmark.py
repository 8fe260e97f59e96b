import os
import subprocess
import sys

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which takes its time")
def test_without_a_gpu_the_benchmark_says_so_and_ends_well(root):
    environment = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    command = [sys.executable, str(root / "benchmarks" / "gpu.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "torch finds no GPU here: the path on a GPU is not measured\n"
