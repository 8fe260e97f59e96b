"""The workflow as a module of another one."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.workflow

MAIN = """
configfile: "settings.yaml"

module sclatent:
    snakefile: "{snakefile}"
    config: config["integration"]
    {prefix}

use rule * from sclatent as sclatent_*

rule count_cells:
    input:
        "{folder}results/mine/mine.h5ad",
        "{folder}results/report.html",
    output:
        "n_cells.txt",
    localrule: True
    default_target: True
    run:
        import anndata

        Path(output[0]).write_text(str(anndata.read_h5ad(input[0]).n_obs))
"""


@dataclass
class Project:
    """A workflow of somebody else that uses this one."""

    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run Snakemake in the project's folder."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=self.folder, timeout=1500, **pipes)


@pytest.fixture
def make_project(root, tmp_path, small):
    """Return a function that makes a project with counts of its own."""

    def make(prefix: str = "") -> Project:
        random = np.random.default_rng(0)
        rate = np.exp(random.normal(0, 1, (3, 150)))[random.integers(0, 3, 200)]
        table = pd.DataFrame(random.poisson(rate), index=[f"cell{n}" for n in range(200)])
        table.columns = [f"gene{number}" for number in range(150)]
        (tmp_path / "data").mkdir()
        table.to_csv(tmp_path / "data/mine.csv")
        settings = {key: value for key, value in small.items() if key != "denoise"}
        settings |= {"seeds": [0], "latents": ["pca", "scvi"], "main_latent": "scvi"}
        settings |= {"variants": {}, "datasets": {"mine": {"source": "data/mine.csv"}}}
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"integration": settings}))
        text = MAIN.format(
            snakefile=root / "Snakefile",
            prefix=f'prefix: "{prefix}"' if prefix else "",
            folder=f"{prefix}/" if prefix else "",
        )
        (tmp_path / "Snakefile").write_text(text)
        return Project(tmp_path)

    return make


def test_another_workflow_runs_this_one_below_a_folder_of_its_own(make_project):
    project = make_project("integration")
    result = project.run()
    assert result.returncode == 0, result.stdout[-5000:]
    assert 100 < int((project.folder / "n_cells.txt").read_text()) <= 200
    assert not (project.folder / "results").exists()
    assert (project.folder / "integration/results/report.html").exists()
    assert not list(project.folder.rglob("*.checkpoint*"))
    assert "sclatent_train_scvi" in result.stdout
    again = project.run("--dry-run")
    assert "Nothing to be done" in again.stdout, again.stdout[-3000:]
    described = project.run("integration/results/ro-crate-metadata.json")
    assert described.returncode == 0, described.stdout[-3000:]


def test_a_module_fills_in_the_defaults_and_refuses_what_the_workflow_refuses(make_project):
    project = make_project()
    result = project.run("--dry-run")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "results/mine/latent/scvi/seed0.h5ad" in result.stdout
    settings = yaml.safe_load((project.folder / "settings.yaml").read_text())
    settings["integration"]["qc"]["min_count"] = 5
    (project.folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    result = project.run("--dry-run")
    assert result.returncode != 0
    assert "there is no key 'min_count', did you mean 'min_counts'" in result.stdout
