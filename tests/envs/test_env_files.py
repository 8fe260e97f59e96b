"""The environment files, as strict conda reads them and beside the lock."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from rattler import MatchSpec

# The packages that conda-forge builds for a CPU or for CUDA
BUILDS = {"pytorch": {"cpu*", "cuda*"}}


@pytest.fixture
def environments(root) -> dict[str, dict]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in root.glob("envs/*.yaml")}


def test_the_environments_are_few_and_of_conda_forge_alone(environments):
    assert 1 <= len(environments) <= 6
    for name, environment in environments.items():
        assert environment.keys() == {"channels", "dependencies"}, name
        assert environment["channels"] == ["conda-forge", "nodefaults"], name


def test_conda_reads_every_line_and_the_pins_equal_the_lock(root, environments):
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (root / "requirements.lock").read_text(), re.M))
    pypi = yaml.safe_load((root / "tests/envs/stand_in/pypi.yaml").read_text())
    for environment, content in environments.items():
        for line in content["dependencies"]:
            spec = MatchSpec(line, strict=True)
            name = spec.name.normalized
            wanted = "3.11" if name == "python" else pins[pypi.get(name, name)]
            assert spec.version == f"{wanted}.*", f"{environment}: {line}"
            assert spec.build in BUILDS.get(name, {None}), f"{environment}: {line}"


def test_the_environment_with_cuda_differs_by_the_build_of_pytorch(environments):
    plain, cuda = (environments[name]["dependencies"] for name in ("torch", "torch-cuda"))
    assert [line.replace(" cpu*", " cuda*") for line in plain] == cuda
    assert plain != cuda


def test_training_on_a_gpu_takes_the_environment_with_cuda(root, tmp_path):
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"]
    command += ["--snakefile", root / "Snakefile", "--profile", root / "profiles/conda"]
    path = f"{root}/tests/envs/stand_in/bin:{os.environ['PATH']}"
    printed = subprocess.check_output(
        [*command, "--config", "training={device: cuda}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stderr=subprocess.STDOUT,
        text=True,
    )
    announced = re.findall(r"envs/([\w-]+)\.yaml will be created", printed)
    assert set(announced) == {"data", "cells", "torch-cuda", "crate"}, printed
