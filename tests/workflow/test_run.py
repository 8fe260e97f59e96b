import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import issparse

from sclatent import files

pytestmark = pytest.mark.workflow


def test_the_exported_dataset_holds_everything(finished):
    adata = anndata.read_h5ad(finished.folder / "results/toy/toy.h5ad")
    counts = adata.layers["counts"]
    assert issparse(counts)
    assert (counts.data == np.round(counts.data)).all()
    latents = {"X_pca", "X_pca_harmony", "X_dca", "X_scVI", "X_scANVI"}
    assert latents | {"X_umap", "X_umap_pca"} <= set(adata.obsm)
    assert {"batch", "cell_type", "leiden", "predicted_scanvi"} <= set(adata.obs)


def test_observed_labels_are_never_overwritten(finished):
    results = finished.folder / "results/toy"
    before = anndata.read_h5ad(results / "data/cells.h5ad").obs["cell_type"].astype(str)
    after = anndata.read_h5ad(results / "toy.h5ad").obs["cell_type"].astype(str)
    assert (before == after[before.index]).all()
    assert (before == "Unknown").any()


def test_a_table_without_batches_and_labels_goes_all_the_way(finished):
    adata = anndata.read_h5ad(finished.folder / "results/plain/plain.h5ad")
    assert "X_scVI" in adata.obsm
    assert "X_scANVI" not in adata.obsm
    scores = files.read_table(finished.folder / "results/plain/benchmark/comparison.tsv")
    assert scores.query("metric == 'ilisi'")["value"].isna().all()
    assert scores.query("metric == 'preservation'")["value"].notna().any()


def test_the_comparison_has_every_latent_seed_and_control(finished):
    scores = files.read_table(finished.folder / "results/toy/benchmark/comparison.tsv")
    rows = scores.query("metric == 'knn_accuracy' and kind == 'latent'")
    assert sorted(set(zip(rows["latent"], rows["seed"], strict=True))) == [
        (latent, seed)
        for latent in ("dca", "harmony", "pca", "scanvi", "scvi", "scvi_linear")
        for seed in (0, 1)
    ]
    assert {"shuffled", "labels"} <= set(scores.query("kind == 'control'")["latent"])
    assert {"wall_seconds", "peak_memory_mb"} <= set(scores["metric"])


def test_the_kl_weight_of_every_training_ends_at_one(finished):
    curves = list((finished.folder / "results").glob("*/latent/*/seed*.curve.tsv"))
    assert len(curves) == 14
    for path in curves:
        curve = pd.read_csv(path, sep="\t")
        assert curve["kl_weight"].iloc[-1] == 1
        assert curve["best"].sum() == 1


def test_the_report_is_one_file_and_the_verdict_is_printed(finished):
    page = (finished.folder / "results/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image/png;base64,' in page
    terminal = (finished.folder / "terminal.txt").read_text()
    verdict = (finished.folder / "results/verdict.txt").read_text()
    assert "Report: results/report.html" in verdict
    # the test runs from another folder
    report = str(finished.folder / "results/report.html")
    assert verdict.strip().replace("results/report.html", report) in terminal


def test_training_shows_epochs_losses_and_time_left_in_its_log(finished):
    log = (finished.folder / "results/toy/logs/train_scvi/scvi.seed0.log").read_text()
    assert re.search(r"^epoch 1/\d+ .* nats/cell .* \d+ s left$", log, re.M)


def test_without_a_terminal_there_is_a_line_per_job_and_none_of_inputs(finished):
    lines = (finished.folder / "terminal.txt").read_text().splitlines()
    done = [re.fullmatch(r"\[ *(\d+)/(\d+)\] (\w+).*: \d+\.\d s", line) for line in lines]
    done = [match for match in done if match]
    n_jobs = int(re.fullmatch(r"(\d+) jobs to run", next(x for x in lines if "to run" in x))[1])
    assert [int(match[1]) for match in done] == list(range(1, n_jobs + 1))
    assert {int(match[2]) for match in done} == {n_jobs}
    assert {"simulate_counts", "train_scvi", "write_report"} <= {match[3] for match in done}
    assert any(line.startswith("WARNING validate_counts toy: ") for line in lines)
    assert not re.search(r"^ +(input|output|resources|reason): ", "\n".join(lines), re.M)
    assert len(lines) < 2 * n_jobs


def test_the_end_says_how_long_it_took_and_where_snakemakes_own_log_is(finished):
    text = (finished.folder / "terminal.txt").read_text()
    last = text[text.index("Report: ") :].splitlines()
    assert any(re.fullmatch(r"The run took (\d+ min \d+|\d+\.\d) s\.", line) for line in last)
    (place,) = [line for line in last if line.startswith("Complete log(s): ")]
    log = Path(place.removeprefix("Complete log(s): ")).read_text()
    assert "rule train_scvi:" in log
    assert "    input: results/toy/data/cells.h5ad" in log
    assert "my.yaml" not in "".join(last), "own data were run: there is nothing to teach"


def test_who_asks_for_snakemakes_own_lines_gets_them(finished):
    result = finished.run(
        "results/toy/figures/qc.png", "--forcerun", "plot_qc", "-p", config=finished.config
    )
    assert result.returncode == 0, result.stdout
    assert "    input: results/toy/data/qc.tsv.gz" in result.stdout
    assert "1 of 1 steps (100%) done" in result.stdout


def test_a_finished_run_has_nothing_to_do(finished):
    for path in finished.folder.glob("my*.yaml"):
        path.touch()
    result = finished.run("-n", config=finished.config)
    assert "Nothing to be done" in result.stdout, result.stdout[-3000:]


def test_a_changed_setting_reruns_only_what_depends_on_it(finished):
    config = {**finished.config, "clusters": {"resolutions": [0.5, 1.0, 1.5]}}
    result = finished.run("-n", config=config)
    assert "cluster_cells" in result.stdout
    assert "train_scvi" not in result.stdout
    assert "score_latent" not in result.stdout


def test_an_input_error_ends_with_its_lines_and_no_traceback(workflow, small):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.lognormal(size=(60, 30)), index=[f"c{n}" for n in range(60)])
    table.columns = [f"gene{number}" for number in range(30)]
    table.to_csv(workflow.folder / "normalised.csv")
    config = {**small, "datasets": {"mine": {"source": "normalised.csv"}}}
    result = workflow.run("results/mine/data/counts.h5ad", config=config)
    assert result.returncode != 0
    log = (workflow.folder / "results/mine/logs/validate_counts.log").read_text()
    assert "ERROR" in log
    assert "Traceback" not in log
    line = next(line for line in log.splitlines() if line.startswith("ERROR "))
    assert re.match(r"ERROR E228 .*1,800 of 1,800 .* not whole numbers", line)
    assert "exit code 65" in log
    assert f"\nFAILED validate_counts mine: {line.removeprefix('ERROR ')} (" in result.stdout
    last = result.stdout[result.stdout.rindex(f"\n{line}\n") :]
    assert "results/mine/logs/validate_counts.log" in last
    assert f"snakemake --snakefile {workflow.root}/Snakefile" in last
    errors = json.loads((workflow.folder / "results/errors.json").read_text())
    assert errors == {"results/mine/logs/validate_counts.log": [line]}


def test_where_no_cell_has_a_label_all_but_scanvi_runs_and_without_it_all_is_made(workflow, small):
    random = np.random.default_rng(0)
    cells = [f"c{number}" for number in range(120)]
    genes = [f"gene{number}" for number in range(150)]
    rate = np.exp(random.normal(0, 1, (3, 150)))[random.integers(0, 3, 120)]
    pd.DataFrame(random.poisson(rate), cells, genes).to_csv(workflow.folder / "mine.csv")
    pd.Series("?", cells, name="type").to_csv(workflow.folder / "types.csv")
    entry = {"source": "mine.csv", "annotations": "types.csv", "cell_type": "type", "unknown": "?"}
    config = {**small, "seeds": [0], "denoise": {}, "datasets": {"mine": entry}}
    config["scanvi"] = {"start": "scratch", "training": {"n_steps": 10}}
    result = workflow.run(config={**config, "latents": ["pca", "scanvi"]})
    assert result.returncode != 0
    errors = json.loads((workflow.folder / "results/errors.json").read_text())
    ((log, (line,)),) = errors.items()
    assert log == "results/mine/logs/train_scanvi/scanvi.seed0.log"
    assert re.match(r"ERROR E206 .*Fix: leave what needs labels out of latents", line)
    assert (workflow.folder / "results/mine/benchmark/scores/pca/seed0.tsv").exists()
    result = workflow.run(config={**config, "latents": ["pca"]})
    assert result.returncode == 0, result.stdout[-6000:]
    assert " write_report: " in result.stdout
    assert " fit_pca mine " not in result.stdout
    assert (workflow.folder / "results/report.html").exists()
    adata = anndata.read_h5ad(workflow.folder / "results/mine/mine.h5ad")
    assert set(adata.obs["predicted_logistic"]) == set(adata.obs["cell_type"]) == {"Unknown"}


def test_every_safetensors_has_its_hash_and_no_pickle_is_written(finished):
    results = finished.folder / "results"
    for path in results.glob("*/latent/*/*.model/model.json"):
        description = json.loads(path.read_text())
        assert description["sha256"] == files.sha256(path.with_name("model.safetensors"))
    assert not [path for suffix in ("pkl", "pt", "pickle") for path in results.rglob(f"*.{suffix}")]


def test_a_preset_stands_between_the_defaults_and_what_is_given(workflow):
    simulate = {"n_cells": 200, "n_genes": 150, "n_batches": 2, "n_types": 2}
    config = {
        "compat": "scvi-tools",
        "datasets": {"toy": {"source": "simulate", "simulate": simulate}},
        "scvi": {"n_latent": 7, "training": {"max_epochs": 2}},
        "genes": {"n_top": 50},
        "qc": {"min_counts": 20, "min_genes": 10},
    }
    curve = "results/toy/latent/scvi/seed0.curve.tsv"
    result = workflow.run(curve, config=config)
    assert result.returncode == 0, result.stdout[-3000:]
    description = json.loads(
        (workflow.folder / "results/toy/latent/scvi/seed0.model/model.json").read_text()
    )
    settings = description["settings"]["scvi"]
    given = {"likelihood": "zinb", "n_latent": 7, "start": "random", "n_hidden": 128}
    assert given.items() <= settings.items()
    epochs = files.read_table(workflow.folder / curve)
    assert epochs["learning_rate"].tolist() == [0.001, 0.001]
    assert epochs["kl_weight"].tolist() == [0, 1 / 400]
    assert epochs["best"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("dataset", "models"),
    [("toy", ["dca", "scvi", "scanvi", "scvi_linear"]), ("plain", ["dca", "scvi", "scvi_linear"])],
)
def test_every_count_model_has_its_held_out_likelihood(finished, dataset, models):
    table = files.read_table(finished.folder / f"results/{dataset}/benchmark/likelihood.tsv")
    own = table[table["against"].isna()].set_index("latent")
    assert sorted(own.index) == sorted([*models, "null"])
    assert (own["n_seeds"] == 2).all()
    assert own["mean"].between(own["lower"], own["upper"]).all()
    assert (own["kind"] == "encoded").tolist() == (own.index == "dca").tolist()
    marginal = own[own["kind"] == "marginal"]
    assert (marginal["mean"] >= marginal["elbo"]).all()
    page = (finished.folder / "results/report.html").read_text()
    assert page.count("Likelihood of held-out cells") == 2


def test_denoised_expression_is_written_where_it_is_asked_for(finished):
    paths = sorted((finished.folder / "results").glob("*/expression/*/*.h5ad"))
    assert [path.parent.name for path in paths] == ["scvi_linear"] * 4
    adata = anndata.read_h5ad(paths[-1])
    cells = anndata.read_h5ad(finished.folder / "results/toy/data/cells.h5ad", backed="r")
    assert adata.obs_names.tolist() == cells.obs_names.tolist()
    assert adata.n_vars == 100
    np.testing.assert_allclose(adata.X.sum(1), 10_000, rtol=1e-4)
    assert "not for hypothesis tests" in json.loads(adata.uns["sclatent"])["X"]


def test_a_linear_decoder_has_its_loadings_in_a_table_and_in_varm(finished):
    results = finished.folder / "results/toy"
    table = files.read_table(results / "latent/scvi_linear/seed0.loadings.tsv").set_index("gene")
    assert table.columns.tolist() == ["1", "2", "3", "4", "5"]
    adata = anndata.read_h5ad(results / "toy.h5ad")
    found = adata.varm["X_scVI_linear_loadings"]
    assert (np.isfinite(found[:, 0]) == adata.var["highly_variable"]).all()
    names = adata.var_names.get_indexer(table.index)
    np.testing.assert_allclose(found[names], table, rtol=1e-5)
    assert not list(results.glob("latent/scvi/*.loadings.tsv"))
