import re

import pytest
import yaml
from snakemake.cli import parse_args

pytestmark = pytest.mark.workflow
MILLION = 1459  # MB of counts.h5ad with the million cells of docs/cluster.md
SNAKEMAKE = 200  # MB of Snakemake's own processes in a job


def rules(root) -> dict[str, str]:
    found = {}
    for path in sorted((root / "workflow/rules").glob("*.smk")):
        parts = re.split(r"^rule (\w+):", path.read_text(), flags=re.M)[1:]
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


def at_a_million(arguments: str) -> int:
    base, *per_mb = arguments.removesuffix(", chosen=True").split(", ")
    chosen = arguments.endswith("chosen=True")
    return round(float(base) + (sum(map(float, per_mb)) + chosen) * MILLION)


def test_every_rule_asks_for_what_the_docs_say_and_that_is_more_than_was_measured(root):
    text = (root / "docs/cluster.md").read_text()
    table = {}
    for line in re.findall(r"^\| (\w+_\w+) \|(.*)\|$", text, re.M):
        table[line[0]] = [float(cell) if cell.strip() else 0 for cell in line[1].split("|")]
    asked = {
        name: re.search(r"mem_mb=memory\((.*)\),\n\s+runtime=minutes\((.*)\),", body).groups()
        for name, body in rules(root).items()
    }
    del asked["simulate_counts"]  # whose size is no file's
    assert table.keys() == asked.keys()
    for name, (_, _, largest, mb, seconds, minutes) in table.items():
        memory, runtime = asked[name]
        assert (mb, minutes) == (at_a_million(memory), at_a_million(runtime)), name
        assert mb >= 500, name
        assert mb >= largest + SNAKEMAKE, name
        assert 60 * minutes >= 3 * seconds, name


def dry_run(workflow, **sections) -> dict[str, str]:
    with open(workflow.folder / "mine.h5ad", "wb") as file:
        file.truncate(MILLION * 10**6)
    config = {"datasets": {"mine": {"source": "mine.h5ad"}}, "seeds": [0], **sections}
    result = workflow.run("-n", config=config)
    assert result.returncode == 0, result.stdout
    return dict(re.findall(r"rule (\w+):\n(?:.*\n)*?    resources: (.*)", result.stdout))


def test_memory_and_minutes_follow_the_size_of_the_counts_and_the_limit_of_those_held(workflow):
    asked = dry_run(workflow)
    assert "mem_mb=3988," in asked["filter_cells"]
    assert "runtime=73" in asked["filter_cells"]
    assert "mem_mb=3388," in asked["train_scvi"]
    asked = dry_run(workflow, training={"memory_gb": 0.5})
    assert "mem_mb=3988," in asked["filter_cells"]
    assert "mem_mb=2430," in asked["train_scvi"]


def test_the_slurm_profile_holds_by_itself(root, monkeypatch):
    monkeypatch.chdir(root)
    _, found = parse_args(["--workflow-profile", "profiles/slurm"])
    _, default = parse_args([])
    assert (found.cores, found.executor, found.retries) == (4, "slurm", 2)
    assert found.rerun_triggers == default.rerun_triggers


def test_the_slurm_profile_groups_rules_that_exist_and_leaves_trainings_alone(root):
    profile = yaml.safe_load((root / "profiles/slurm/config.yaml").read_text())
    alone = rules(root).keys() - profile["groups"].keys()
    assert profile["groups"].keys() <= rules(root).keys()
    assert set(profile["group-components"]) <= set(profile["groups"].values())
    assert alone == {
        "download_counts",
        "train_dca",
        "train_scvi",
        "train_scanvi",
        "import_latent",
        "denoise_counts",
    }
