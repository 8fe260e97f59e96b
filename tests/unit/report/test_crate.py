import hashlib
import json

import pytest
from rocrate.rocrate import ROCrate

from sclatent.report.crate import describe


@pytest.fixture
def crate(tmp_path, made_by, monkeypatch):
    """Return the crate of a run, as it is read again from its folder."""
    monkeypatch.chdir(tmp_path)
    for record in made_by:
        for path in record["outputs"]:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text("counts")
    (tmp_path / "results/config.yaml").write_text("seeds: [0]\n")
    content = describe(made_by, "results", "results/config.yaml").metadata.generate()
    (tmp_path / "results/ro-crate-metadata.json").write_text(json.dumps(content))
    return ROCrate(tmp_path / "results")


def test_outputs_stand_with_size_and_hash(crate):
    latent = crate.get("mine/pca.h5ad")
    assert latent.type == "File"
    assert (latent["sha256"], latent["contentSize"]) == ("e" * 64, "6")
    config = crate.get("config.yaml")
    assert config["sha256"] == hashlib.sha256(b"seeds: [0]\n").hexdigest()


def test_a_job_leads_from_the_users_file_to_the_output(crate):
    job = crate.get("#job fit_pca 0")
    assert job.type == "CreateAction"
    assert job["instrument"]["name"] == "fit_pca"
    assert [item["sha256"] for item in job["object"]] == ["a" * 64]
    assert [item.id for item in job["result"]] == ["mine/pca.h5ad"]
    assert job in crate.root_dataset["mentions"]


def test_the_workflow_has_licence_commit_packages_and_inputs(crate):
    workflow = crate.mainEntity
    assert workflow["license"].endswith("BSD-3-Clause")
    assert workflow["version"] == ["c" * 40]
    assert [item["name"] for item in workflow["input"]] == ["mine.h5ad"]
    versions = {
        (item["name"], item["softwareVersion"]) for item in workflow["softwareRequirements"]
    }
    assert {("numpy", "2.4.5"), ("numpy", "2.4.6"), ("python", "3.11.9")} == versions
