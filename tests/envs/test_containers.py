"""The recipes for containers, which install the lock and nothing beside it."""

import re
import shlex

import pytest

INSTALL = "pip install --no-cache-dir --requirement /opt/sclatent/requirements.lock"


@pytest.fixture(params=["Dockerfile", "sclatent.def"])
def recipe(root, request) -> str:
    return (root / "containers" / request.param).read_text()


def copied(recipe) -> set[str]:
    pairs = re.findall(r"^(?:COPY|   ) (\S+) /opt/sclatent/(\S*)$", recipe, re.M)
    assert all(target in ("", source) for source, target in pairs)
    return {source for source, _ in pairs}


def test_a_recipe_installs_the_lock_and_names_no_version_of_its_own(recipe):
    assert recipe.count(INSTALL + "\n") == 1
    assert recipe.count("pip install") == 1
    assert not re.search(r"[=<>~]=\s*\d", recipe)


def test_a_recipe_has_the_python_of_the_environments(root, recipe):
    version = re.search(r"^from:? python:([\d.]+)-slim$", recipe, re.M | re.I)[1]
    assert f"python ={version}\n" in (root / "envs/torch.yaml").read_text()


def test_the_recipes_copy_what_a_run_needs(root, recipe):
    needed = {"requirements.lock", "Snakefile", "config", "profiles", "scripts", "workflow", "envs"}
    assert copied(recipe) == needed
    assert all((root / name).exists() for name in needed)


def test_a_container_runs_the_workflow_as_an_ordinary_user(root):
    docker = (root / "containers/Dockerfile").read_text()
    apptainer = (root / "containers/sclatent.def").read_text()
    entry = re.search(r"^ENTRYPOINT \[(.+)\]$", docker, re.M)[1].replace(",", "")
    command = shlex.split(entry)
    assert f'exec {shlex.join(command)} "$@"' in apptainer
    assert command == ["snakemake", "--snakefile", "/opt/sclatent/Snakefile"]
    assert re.search(r"^USER (?!root|0)\w+$", docker, re.M)
