"""Configs that the workflow refuses before anything runs."""

import re
import subprocess
import sys

import pytest
import yaml


@pytest.mark.workflow
@pytest.mark.parametrize("name", ["../x", "a b", "a/b", "{seed}"])
def test_case_31_names_that_are_unsafe_as_paths_are_refused_in_the_config(root, tmp_path, name):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"datasets": {name: "simulate"}}))
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", root / "Snakefile"]
    command += ["--directory", tmp_path, "--configfile", tmp_path / "mine.yaml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert re.search(rf"ERROR E103 config: datasets: '{re.escape(name)}'", result.stderr)
    assert "Traceback" not in result.stdout + result.stderr
