import json
import subprocess
import sys

import pytest

from sclatent import files, provenance

SCRIPT = """
import sys
sys.path.insert(0, {scripts!r})
from types import SimpleNamespace
from sclatent import job
snakemake = SimpleNamespace(
    rule="fit_pca", wildcards={{"seed": "0"}}, log=["logs/fit_pca/seed0.log"],
    params={{"contents": {{"mine.csv": "a" * 64}}, "threads": 2}},
    input=["mine.csv", "folder"], output=["made.txt"],
)
job.start(snakemake)
{body}
"""


@pytest.fixture
def run(root, tmp_path):
    """Return a function that runs a job and returns its record, None where it left none."""
    (tmp_path / "mine.csv").write_text("1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b").write_text("b")
    (tmp_path / "folder/a").write_text("a")

    def run(body: str) -> dict | None:
        script = SCRIPT.format(scripts=str(root / "scripts"), body=body)
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
        path = tmp_path / "logs/fit_pca/seed0.json"
        return json.loads(path.read_text()) if path.exists() else None

    return run


def test_a_job_that_ends_well_leaves_a_record_beside_its_log(run, tmp_path, root):
    record = run("import numpy; open('made.txt', 'w').write('made')")
    assert record["inputs"]["mine.csv"] == "a" * 64
    lines = "".join(f"{files.sha256(tmp_path / 'folder' / name)}  {name}\n" for name in "ab")
    (tmp_path / "lines").write_text(lines)
    assert record["inputs"]["folder"] == files.sha256(tmp_path / "lines")
    assert record["outputs"] == {"made.txt": files.sha256(tmp_path / "made.txt")}
    assert record["threads"] == 2
    assert {"python", "numpy"} <= record["versions"].keys()
    assert record["lock"] == files.sha256(root / "requirements.lock")
    assert record["cost"]["peak_memory_mb"] > 5
    assert record["started"] <= record["ended"]
    assert record["machine"]["cpu"]


@pytest.mark.parametrize("end", ["1 / 0", "import os; os.remove('made.txt'); raise SystemExit(75)"])
def test_a_job_that_fails_leaves_no_record_and_takes_the_old_one_away(run, end):
    made = "open('made.txt', 'w').write('made')"
    assert run(made)
    assert run(f"{made}; {end}") is None


def test_a_hash_that_stands_beside_a_file_is_taken(tmp_path):
    (tmp_path / "x.h5ad").write_text("x")
    (tmp_path / "x.h5ad.sha256").write_text(f"{'b' * 64}  x.h5ad\n")
    assert provenance.digest(tmp_path / "x.h5ad") == "b" * 64


def write_record(folder, name: str, inputs: list, outputs: list, started: str) -> None:
    content = {"rule": name, "started": started}
    content |= {"inputs": dict.fromkeys(inputs, "in"), "outputs": dict.fromkeys(outputs, "out")}
    files.write_json(folder / f"toy/logs/{name}/seed0.json", content)


def test_only_the_jobs_behind_a_file_are_traced_and_in_their_order(tmp_path):
    write_record(tmp_path, "fit", ["cells", "mine.tsv"], ["latent", "cost"], "2")
    write_record(tmp_path, "read", ["mine.csv"], ["cells"], "1")
    write_record(tmp_path, "other", ["cells"], ["figure"], "3")
    records = provenance.trace(["latent"], tmp_path)
    assert [record["rule"] for record in records] == ["read", "fit"]
    assert provenance.sources(records) == {"mine.csv": "in", "mine.tsv": "in"}


def test_outside_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit() is None


def test_a_changed_file_is_seen_in_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "file").write_text("1")
    me = ["-c", "user.name=me", "-c", "user.email=me@here"]
    for command in (["init"], ["add", "file"], [*me, "commit", "--message", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True, capture_output=True)
    head = provenance.commit()
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert provenance.commit() == f"{head}+"
