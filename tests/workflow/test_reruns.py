"""What makes a rule run again, and what does not."""

import os
import re
import shutil

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.workflow
CODE = ["Snakefile", "config", "envs", "profiles", "requirements.lock", "scripts", "workflow"]


@pytest.fixture
def elsewhere(root, finished, tmp_path):
    """The finished run, seen from a copy of the code that a test may change."""
    for name in CODE:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    workflow = type(finished)(tmp_path, finished.folder)
    workflow.config = finished.config
    return workflow


def would_run(result) -> dict[str, set[str]]:
    """Return the rules of a dry run by the reason why they run."""
    assert result.returncode == 0, result.stdout[-3000:]
    reasons = re.findall(r"^    ([\w ]+):\n        (.+)$", result.stdout, re.M)
    return {reason: set(rules.split(", ")) for reason, rules in reasons}


CHANGED = "params have changed since last execution"


def rules_in(found: dict[str, set[str]]) -> set[str]:
    """Return all rules that would run."""
    return set().union(*found.values())


def test_a_rule_has_the_pins_of_its_environment(root):
    for path in (root / "workflow/rules").glob("*.smk"):
        for body in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            name = body.split(":")[0]
            if name != "download_counts":  # changed packages download nothing again
                environment = re.search(
                    r"^    conda:\n.*?(?:envs/)?(\w+)(?:_env|\.yaml)", body, re.M
                )[1]
                assert f'packages=pinned("{environment}")' in body, name


def test_nothing_runs_again_for_touched_files_another_place_of_the_code_or_another_folder(
    elsewhere, tmp_path, monkeypatch
):
    for path in tmp_path.rglob("*"):
        path.touch()
    monkeypatch.chdir(tmp_path / "config")
    result = elsewhere.run("-n", config=elsewhere.config)
    assert "Nothing to be done" in result.stdout, result.stdout[-3000:]


def test_the_config_beside_the_report_makes_the_same_run(finished):
    result = finished.run("-n", "--configfile", str(finished.folder / "results/config.yaml"))
    assert "Nothing to be done" in result.stdout, result.stdout[-3000:]


def test_a_changed_pin_reruns_the_rules_that_have_it_and_what_follows(elsewhere, tmp_path):
    lock = tmp_path / "requirements.lock"
    text = lock.read_text()
    for package in ("torch", "ruff", "snakemake"):
        text, n = re.subn(rf"^{package}==.*$", f"{package}==99.0", text, flags=re.M)
        assert n == 1
    lock.write_text(text)
    found = would_run(elsewhere.run("-n", config=elsewhere.config))
    assert found[CHANGED] == {"train_dca", "train_scvi"}
    assert {"train_scanvi", "denoise_counts", "score_likelihood"} <= rules_in(found)
    others = {"validate_counts", "filter_cells", "select_genes", "fit_pca", "plot_qc"}
    assert not rules_in(found) & others


def test_a_package_that_another_one_needs_counts_as_its_own(elsewhere, tmp_path):
    lock = tmp_path / "requirements.lock"
    # texttable comes with igraph alone
    text, n = re.subn(r"^texttable==.*$", "texttable==99.0", lock.read_text(), flags=re.M)
    assert n == 1
    lock.write_text(text)
    found = would_run(elsewhere.run("-n", config=elsewhere.config))
    assert {"fit_pca", "build_graph"} <= found[CHANGED]
    assert not rules_in(found) & {"validate_counts", "train_dca", "train_scvi"}


def test_a_changed_module_or_script_reruns_the_rules_that_use_it(elsewhere, tmp_path):
    for name in ("sclatent/cells/clusters.py", "plot_qc.py"):
        with open(tmp_path / "scripts" / name, "a") as file:
            file.write("\n# changed\n")
    found = would_run(elsewhere.run("-n", config=elsewhere.config))
    assert found[CHANGED] == {"cluster_cells", "plot_qc"}


def test_changed_bytes_of_a_large_input_rerun_its_rules_and_a_touched_one_does_not(workflow, small):
    path = workflow.folder / "mine.csv"
    columns = [f"gene{number}" for number in range(3000)]
    table = pd.DataFrame(1, index=[f"cell{number}" for number in range(200)], columns=columns)
    table.iloc[:, ::2] = 2
    table.to_csv(path)
    assert path.stat().st_size > 1_000_000, "Snakemake compares smaller files by their hash itself"
    config = {**small, "datasets": {"mine": {"source": "mine.csv"}}}
    target = "results/mine/data/counts.h5ad"
    result = workflow.run(target, config=config)
    assert result.returncode == 0, result.stdout[-3000:]
    path.touch()
    assert "Nothing to be done" in workflow.run(target, "-n", config=config).stdout
    stat = path.stat()
    table.iloc[0, 0] = 3
    table.to_csv(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    found = would_run(workflow.run(target, "-n", config=config))
    assert found[CHANGED] == {"validate_counts"}


def test_the_effective_config_is_written(finished):
    config = yaml.safe_load((finished.folder / "results/config.yaml").read_text())
    assert config["scvi"]["n_latent"] == 5
    assert config["harmony"]["theta"] == 2.0
    assert set(config["datasets"]) == {"toy", "plain"}
