"""`make parity` runs, in small, on simulated files in the place of the real ones."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from sclatent.data.simulate import Simulation, simulate


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    for seed, name in enumerate(("kang_ifnb_2800", "pbmc_labelled_4batch")):
        simulated = simulate(
            Simulation(n_cells=650, n_genes=500, n_types=3, unlabelled=0.1 * seed, seed=seed)
        )
        simulated.write_h5ad(folder / f"{name}.h5ad")
    (folder / "notes.md").write_text((root / "docs/parity.md").read_text())
    command = [sys.executable, "-W", "ignore", str(root / "benchmarks/parity.py"), "--quick"]
    given = ["--data", folder, "--out", folder / "out", "--docs", folder / "notes.md"]
    environment = os.environ | {"PYTHONPATH": str(root / "scripts"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *map(str, given)], env=environment, capture_output=True, text=True, cwd=folder
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout


def test_every_arm_and_metric_of_both_datasets_has_a_value(finished):
    folder, _ = finished
    rows = json.loads((folder / "out/parity.json").read_text())["values"]
    metrics = {
        "scVI": {"nelbo", "log_likelihood", "ess", "knn_accuracy", "ilisi", "seconds"},
        "scANVI": {"accuracy", "knn_accuracy", "ilisi", "seconds"},
    }
    for dataset in ("kang", "pbmc_labelled"):
        for model, expected in metrics.items():
            for arm in ("scvi-tools", "compat", "defaults"):
                wanted = {"dataset": dataset, "model": model, "arm": arm}
                found = {row["metric"] for row in rows if wanted.items() <= row.items()}
                assert found == expected, wanted
        guesses = {row["arm"] for row in rows if row["model"] == "DCA"}
        assert guesses == {"dca", "raw", "means"}
    assert np.isfinite([row["value"] for row in rows]).all()


def test_the_log_likelihood_is_at_least_the_elbo(finished):
    folder, _ = finished
    rows = json.loads((folder / "out/parity.json").read_text())["values"]
    values = {(row["dataset"], row["arm"], row["metric"]): row["value"] for row in rows}
    for dataset, arm, metric in values:
        if metric == "nelbo":
            assert values[dataset, arm, "log_likelihood"] >= -values[dataset, arm, "nelbo"]


def test_the_tables_are_printed_and_a_trial_leaves_the_docs_alone(finished, root):
    folder, printed = finished
    assert (folder / "out/parity.md").read_text() in printed
    assert "these numbers mean nothing" in printed
    assert printed.count("| seconds of training ↓ |") == 4
    assert len(re.findall(r"### (?:scVI|scANVI|DCA), ", printed)) == 6
    assert (folder / "notes.md").read_text() == (root / "docs/parity.md").read_text()


def test_a_verdict_follows_from_the_paired_interval(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    import parity_tables

    assert parity_tables.verdict(np.array([1.0, 1.1, 0.9]), 1, 1)[1] == "better (3 of 3)"
    assert parity_tables.verdict(np.array([1.0, 1.1, 0.9]), -1, 1)[1] == "**worse** (0 of 3)"
    assert parity_tables.verdict(np.array([1.0, 0.5, -0.2]), 1, 1)[1] == "equal (2 of 3)"
    assert parity_tables.verdict(np.array([1.0]), 1, 1) == ["+1.0", "one seed (1 of 1)"]
    assert parity_tables.verdict(np.array([1.0, 2.0]), 0, 1)[1] == ""


def test_the_tables_replace_what_stands_between_the_marks(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    import parity_tables

    path = tmp_path / "parity.md"
    path.write_text((root / "docs/parity.md").read_text())
    before = path.read_text().split(parity_tables.START)[0]
    for text in ("first", "second"):
        parity_tables.rewrite(path, text)
    assert path.read_text() == (f"{before}{parity_tables.START}\n\nsecond\n{parity_tables.END}\n")
