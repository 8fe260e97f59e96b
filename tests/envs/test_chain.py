"""Each rule runs in the environment of its group, and finds all that it needs there."""

import subprocess

import pytest
import yaml

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")


def test_snakemake_runs_from_an_environment_without_any_science(lean):
    script = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, sys.argv[1:])))"
    science = ["numpy", "scipy", "pandas", "anndata", "sklearn", "torch", "numba", "matplotlib"]
    assert subprocess.run([lean / "bin/python", "-c", script, *science]).returncode == 0


def test_every_rule_runs_in_an_environment_made_from_a_file(root, chain):
    assert {job.rule for job in chain} == {path.stem for path in (root / "scripts").glob("*.py")}
    files = {path.read_text() for path in (root / "envs").glob("*.yaml")}
    assert all(job.file.read_text() in files for job in chain)


# numpy takes the first and joblib the second where it is, and both do without.
OPTIONAL = {"charset-normalizer", "psutil"}


def test_no_job_takes_a_package_from_snakemakes_environment(lean, chain):
    for job in chain:
        taken = {name for name in job.packages(lean) if not name.startswith("snakemake")}
        assert taken <= OPTIONAL, job.rule


# The data that ship inside scanpy are read without importing it; a crate reads no table.
UNSEEN = {"scanpy", "pandas"}


def test_every_package_that_an_environment_lists_is_loaded_by_a_job(root, chain):
    pypi = yaml.safe_load((root / "tests/envs/stand_in/pypi.yaml").read_text())
    for file in {job.file for job in chain}:
        names = [line.split()[0] for line in yaml.safe_load(file.read_text())["dependencies"]]
        used = set().union(*(job.packages(job.prefix) for job in chain if job.file == file))
        unused = {pypi.get(name, name) for name in names} - used - {"python", *UNSEEN}
        assert not unused, f"{file.read_text().splitlines()[0]} {unused}"
