"""The benchmark commands run, in small, and write what they measured; no number is judged."""

import json
import os
import subprocess
import sys

import anndata
import numpy as np
import pytest

from sclatent.data.simulate import Simulation, simulate


def run(root, command, *options, check=True):
    """Run a benchmark as its make target does; return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(root / "scripts"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", root / "benchmarks" / f"{command}.py", *options]
    result = subprocess.run(
        [*map(str, words)], env=environment, capture_output=True, text=True, cwd=root
    )
    assert not check or result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture
def bench(root, monkeypatch):
    """Let the modules of the benchmarks be imported."""
    monkeypatch.syspath_prepend(root / "benchmarks")


@pytest.fixture(scope="module")
def training(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    simulated = simulate(Simulation(n_cells=650, n_genes=700, n_types=3, unlabelled=0.1))
    simulated.write_h5ad(folder / "pbmc_labelled_4batch.h5ad")
    options = ("--quick", "--epochs", "2", "--threads", "1", "--data", folder)
    options = (*options, "--out", folder / "out")
    printed = run(root, "training", *options)
    return folder / "out", options, printed


def test_every_part_of_the_training_benchmark_has_numbers_of_both_sides(training):
    out, _, _ = training
    content = json.loads((out / "training.json").read_text())
    assert {"machine", "bf16", "date", "load", "versions", "threads"} <= set(content["conditions"])
    pieces = {(piece["dataset"], piece["part"]): piece["values"] for piece in content["pieces"]}
    parts = ["nb", "zinb", "scanvi", "dca", "default", "elbo", "tuned"]
    assert set(pieces) == {(d, p) for d in ("simulated", "pbmc_labelled") for p in parts}
    for (_, part), values in pieces.items():
        if part in ("elbo", "tuned"):
            assert values["their_epochs"] == 2
            assert values["ours"] is None or values["ours"] <= values["ours_in_all"]
            assert values["ours"] is None or values["ours_best"] <= values["goal"]
            for side in ("ours", "theirs"):
                assert values[f"{side}_log_likelihood"] >= -values[f"{side}_nelbo"]
        else:
            assert values["ours"] > 0
            assert part == "dca" or values["theirs"] > 0
    assert pieces["simulated", "default"]["flops_per_cell"] == 2 * 5 * 500 * 128


def test_the_training_table_names_targets_and_conditions(training):
    out, _, printed = training
    assert (out / "training.md").read_text() in printed
    assert "these numbers mean nothing" in printed
    for words in ("| ≥ 20 × |", "| ≥ 40 × |", "| not worse |", "| ≥ 45% |", "GEMM roofline"):
        assert printed.count(words) >= 2, words


def test_a_resumed_run_keeps_what_was_measured_and_measures_what_is_missing(root, training):
    out, options, _ = training
    pieces = out / "pieces"
    (pieces / "simulated.dca.0.json").unlink()
    kept = (pieces / "simulated.nb.0.json").stat().st_mtime_ns
    run(root, "training", *options, "--datasets", "simulated", "--parts", "nb", "dca", "--resume")
    assert (pieces / "simulated.nb.0.json").stat().st_mtime_ns == kept
    assert (pieces / "simulated.dca.0.json").is_file()
    assert len(json.loads((out / "training.json").read_text())["pieces"]) == 2


@pytest.mark.usefixtures("bench")
def test_a_part_whose_end_is_not_reached_misses_its_target():
    import training_tables

    values = {"ours": None, "theirs": 9.0, "their_epochs": 5}
    values |= {"ours_nelbo": 2.0, "theirs_nelbo": 1.0}
    values |= {"ours_log_likelihood": -2.0, "theirs_log_likelihood": -1.0}
    piece = {"dataset": "d", "part": "elbo", "conditions": {"bf16": True}, "values": values}
    lines = training_tables.table([piece])[2:]
    assert "| not reached | 9.0 |" in lines[0]
    assert all(line.endswith("| no |") for line in lines)


@pytest.mark.usefixtures("bench")
def test_the_speed_asked_for_depends_on_the_instructions_of_the_cpu():
    import training_tables

    values = {"ours": 6.0, "theirs": 1.0}
    for bf16, met in ((True, "| ≥ 12 × | no |"), (False, "| ≥ 5 × | yes |")):
        piece = {"dataset": "d", "part": "nb", "conditions": {"bf16": bf16}, "values": values}
        assert training_tables.table([piece])[-1].endswith(met)


def test_the_time_of_a_step_is_that_of_its_parts(root, tmp_path):
    options = ("--quick", "--epochs", "1", "--minibatches", "128", "--out", tmp_path)
    printed = run(root, "steps", *options, "--threads", "1", "2")
    assert (tmp_path / "steps.md").read_text() in printed
    one, two = json.loads((tmp_path / "steps.json").read_text())["runs"]
    assert (one["threads"], two["threads"]) == (1, 2)
    parts = set(one["milliseconds"])
    hidden = "hidden layers, latent state and its sample"
    assert {"Adam", hidden, "gathering the minibatch", "all"} <= parts
    for found in (one, two):
        assert set(found["milliseconds"]) == parts
        assert min(found["milliseconds"].values()) > 0


def test_scaling_times_every_rule_at_every_size(root, tmp_path, quick):
    options = ("--sizes", "400", "700", "--genes", "500", "--out", tmp_path / "out")
    printed = run(root, "scaling", *options, "--detected", "0.3", "--overlay", quick)
    content = json.loads((tmp_path / "out/scaling.json").read_text())
    assert [found["cells"] for found in content["runs"]] == [400, 700]
    for found in content["runs"]:
        assert found["complete"]
        rows = {row["rule"]: row for row in found["stages"]}
        assert {"fit_pca", "train_scvi", "embed_umap", "write_report"} <= set(rows)
        for row in found["stages"]:
            assert row["jobs"] >= 1
            assert 0 < row["seconds"] < found["seconds"]
            assert 20 < row["peak_mb"] <= found["peak_mb"] + 1
        assert rows["build_graph"]["jobs"] == 2
    assert set(content["exponents"]) == {"all", *rows}
    assert (tmp_path / "out/scaling.md").read_text() in printed
    run(root, "scaling", *options, "--resume", "--overlay", quick)
    assert json.loads((tmp_path / "out/scaling.json").read_text()) == content


def test_the_million_goes_through_in_small(root, tmp_path, quick):
    options = ("--cells", "500", "--genes", "600", "--detected", "0.3", "--out", tmp_path / "out")
    printed = run(root, "million", *options, "--scratch", tmp_path / "scratch", "--overlay", quick)
    content = json.loads((tmp_path / "out/million.json").read_text())
    assert content["complete"]
    rules = {row["rule"] for row in content["stages"]}
    assert {"validate_counts", "embed_umap", "export_dataset"} <= rules
    assert "score_latent" not in rules
    assert "| minutes | " in printed
    exported = anndata.read_h5ad(tmp_path / "scratch/results/counts/counts.h5ad")
    assert {"X_pca", "X_scVI", "X_umap"} <= set(exported.obsm)


def test_a_failed_chain_says_so_and_keeps_what_was_measured(root, tmp_path):
    options = ("--cells", "300", "--genes", "50", "--out", tmp_path / "out")
    printed = run(root, "million", *options, check=False)
    content = json.loads((tmp_path / "out/million.json").read_text())
    assert not content["complete"]
    assert "ERROR the workflow failed" in printed


@pytest.mark.usefixtures("bench")
def test_simulated_files_are_what_anndata_writes_and_the_same_for_any_threads(tmp_path):
    import numba
    import simulated_file

    digests = set()
    for threads, name in ((1, "first"), (min(2, numba.config.NUMBA_NUM_THREADS), "second")):
        numba.set_num_threads(threads)
        n = simulated_file.write_simulated(tmp_path / name, 2500, 400, 80, seed=3)
        cells = anndata.read_h5ad(tmp_path / name)
        digests.add((cells.X.data.tobytes(), cells.X.indices.tobytes()))
    assert len(digests) == 1
    assert cells.shape == (2500, 400)
    assert cells.X.nnz == n
    assert cells.X.has_canonical_format
    assert (cells.X.data >= 1).all()
    assert set(cells.obs) == {"batch", "cell_type"}
    assert abs(n / 2500 - 80) < 8


@pytest.mark.usefixtures("bench")
def test_molecules_are_drawn_in_proportion_to_their_shares():
    import simulated_file

    share = np.random.default_rng(0).dirichlet(np.ones(30))
    threshold, other = (part[None] for part in simulated_file.build_alias(share))
    counts = np.zeros((200, 30), dtype=np.uint16)
    nothing = np.zeros(200, dtype=np.int64)
    molecules = np.full(200, 5000)
    simulated_file.draw_counts(
        threshold, other, nothing, nothing, nothing.astype(float), molecules, 1, 0, counts
    )
    assert (counts.sum(1) == 5000).all()
    error = counts.sum(0) / 1e6 - share
    assert (np.abs(error) < 5 * np.sqrt(share / 1e6) + 1e-5).all()


@pytest.mark.usefixtures("bench")
def test_simulated_cells_to_train_on_are_sparse_and_reproducible():
    import simulated

    first, second = (simulated.simulate(700, 300, seed=1) for _ in range(2))
    assert (first.X != second.X).nnz == 0
    assert 0.87 < 1 - first.X.nnz / np.prod(first.shape) < 0.93
    assert first.obs["batch"].nunique() == 4


@pytest.mark.usefixtures("bench")
def test_an_exponent_is_the_slope_in_logarithms():
    import scaling

    assert scaling.exponent([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert scaling.exponent([10, 100], [1.0, 100.0]) == pytest.approx(2)
    assert np.isnan(scaling.exponent([10], [1.0]))


@pytest.fixture
def quick(tmp_path):
    """A config that makes every stage quick."""
    path = tmp_path / "quick.yaml"
    path.write_text(
        "training: {n_steps: 20, min_epochs: 1}\n"
        "scvi: {n_latent: 5, n_hidden: 16}\n"
        "pca: {n_components: 5}\n"
        "genes: {n_top: 100, min_cells_per_batch: 20}\n"
        "clusters: {resolutions: [1.0]}\n"
        "qc: {min_counts: 20, min_genes: 10, doublets: false}\n"
        "benchmark: {n_neighbors_lisi: 30, n_inits: 2, n_importance_samples: 5}\n"
    )
    return path
