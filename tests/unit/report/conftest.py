"""Made-up results of one dataset, in the formats that the workflow writes."""

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclatent import files
from sclatent.benchmark.comparison import summarise_all
from sclatent.benchmark.likelihood import compare
from sclatent.data.store import UNKNOWN, write_latent

SCORES = {"pca": 0.83, "harmony": 0.87, "scvi": 0.84, "scanvi": 0.91, "shuffled": 0.1, "labels": 1}
COSTS = ("wall_seconds", "cpu_seconds", "peak_memory_mb")
METRICS = ("knn_accuracy", "nmi", "ari", "clisi", "ilisi", "graph_connectivity", "preservation")


def pick(rng, names, n):
    """Return n names as a categorical, the first ones more often."""
    share = np.linspace(2, 0.3, len(names))
    values = rng.choice(names, n, p=share / share.sum())
    return pd.Categorical(values, categories=sorted(set(values)))


def make_cells(rng, n_cells, types, batches, n_genes):
    """Return cells with counts and quality metrics."""
    counts = sparse.random(n_cells, n_genes, 0.2, "csr", rng=rng)
    counts.data = rng.integers(1, 9, counts.nnz)
    counts = counts.astype(np.int32)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    obs["batch"], obs["cell_type"] = pick(rng, batches, n_cells), pick(rng, types, n_cells)
    obs["total_counts"] = np.asarray(counts.sum(axis=1)).ravel()
    obs["pct_counts_mt"] = rng.uniform(0, 9, n_cells)
    obs["leiden"] = pd.Categorical(["mine"] * n_cells)
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return anndata.AnnData(counts, obs=obs, var=var)


def make_comparison(rng, latents, seeds, n_batches, labelled):
    """Return comparison.tsv: scores of latents and controls, and costs."""
    rows = []
    for latent in (*latents, "shuffled", *(["labels"] if labelled else [])):
        kind = "control" if latent in ("shuffled", "labels") else "latent"
        for seed in seeds:
            for metric in METRICS:
                value, note = SCORES[latent] + rng.normal(0, 0.01), ""
                scope = "all cells" if metric in ("ilisi", "preservation") else "test labels"
                if metric == "ilisi":
                    value = 0.9 if latent == "shuffled" else abs(SCORES[latent] - 0.83) * 4
                    if n_batches == 1:
                        value, note = np.nan, "single batch"
                elif metric == "preservation":
                    value = 1.2 - SCORES[latent] if kind == "latent" else 0.01
                elif not labelled:
                    value, note = np.nan, "no test labels"
                elif metric == "knn_accuracy" and n_batches == 1:
                    note = "within one batch"
                rows.append((latent, kind, seed, metric, value, 140, scope, 560, note, ""))
            if kind == "latent":
                wall = {"pca": 1.7, "harmony": 2.1, "scvi": 41.0, "scanvi": 12.4}[latent]
                costs = zip(COSTS, (wall, 1.6 * wall, 410 + wall), strict=True)
                for metric, value in costs:
                    value *= 1 + rng.uniform(0, 0.1)
                    below = {"harmony": "pca", "scanvi": "scvi"}.get(latent, "")
                    rows.append((latent, kind, seed, metric, value, *[None] * 4, below))
    columns = [
        "latent",
        "kind",
        "seed",
        "metric",
        "value",
        "n_cells",
        "scope",
        "n_rest",
        "note",
        "on_top_of",
    ]
    return pd.DataFrame(rows, columns=columns)


def write_splits(rng, path, cells):
    known = (cells.obs["cell_type"] != UNKNOWN).to_numpy()
    labels = rng.choice(["train", "calibration", "test"], cells.n_obs, p=[0.7, 0.1, 0.2])
    table = pd.DataFrame(
        {
            "cell": cells.obs_names,
            "cells": rng.choice(["train", "validation", "heldout"], cells.n_obs),
            "labels": np.where(known, labels, "unknown"),
        }
    )
    files.write_table(path, table)
    return table


def write_labels(rng, path, cells, right):
    """Write predicted labels that are right as often as asked; return the table."""
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    classes = np.array(sorted(set(truth) - {UNKNOWN}))
    chosen = np.where(rng.random(len(truth)) < right, truth, rng.choice(classes, len(truth)))
    chosen = np.where(chosen == UNKNOWN, classes[0], chosen)
    probability = 0.5 * (1 + rng.beta(4, 1, len(truth)))
    rest = ((1 - probability) / max(len(classes) - 1, 1))[:, None]
    shares = np.where(classes == chosen[:, None], probability[:, None], rest)
    table = pd.DataFrame(shares, columns=[f"p:{name}" for name in classes])
    table.insert(0, "probability", probability)
    table.insert(0, "label", chosen)
    table.insert(0, "cell", cells.obs_names)
    files.write_table(path, table)


def make_scores(rng, classifiers, seeds):
    rows = [
        (classifier, seed, metric, base + rng.normal(0, 0.01), 140)
        for classifier, quality in zip(
            (*classifiers, "majority"), (0.9, 0.86, 0.92, 0.3), strict=True
        )
        for seed in seeds
        for metric, base in {
            "accuracy": quality,
            "macro_f1": quality - 0.1,
            "ece": 0.05,
            "brier": 0.2,
            "nll": 0.5,
        }.items()
    ]
    return pd.DataFrame(rows, columns=["classifier", "seed", "metric", "value", "n_cells"])


def make_likelihoods(seeds):
    """Return the likelihoods of all seeds: of scVI, a variant and DCA, and of the null model."""
    return pd.DataFrame(
        {
            "latent": latent,
            "seed": seed,
            "kind": kind,
            "n_cells": 30,
            "n_train": 240,
            "n_samples": 100,
            "elbo": value - 2 + jump,
            "log_likelihood": value + jump,
            "null": -500 - jump,
            "ess_median": 0.2,
            "ess_minimum": 0.03,
        }
        for latent, kind, value in (
            ("dca", "encoded", -300.0),
            ("scvi", "marginal", -400.0),
            ("scvi_linear", "marginal", -410.0),
        )
        for seed, jump in zip(seeds, (0.0, 0.5, -0.5), strict=False)
    )


def write_layout(rng, path, cells, latent):
    types = cells.obs["cell_type"].cat.codes.to_numpy()
    batches = cells.obs["batch"].cat.codes.to_numpy()
    layout = anndata.AnnData(obs=cells.obs[[]].iloc[::-1])
    for seed in range(3):
        centres = rng.normal(0, 8, (types.max() + 1, 2))
        shift = rng.normal(0, 3 if latent == "pca" else 0.2, (batches.max() + 1, 2))
        points = centres[types] + shift[batches] + rng.normal(size=(cells.n_obs, 2))
        layout.obsm[f"seed{seed}"] = points[::-1].astype(np.float32)
    layout.uns["trustworthiness"] = {f"seed{seed}": 0.9312 + seed / 1000 for seed in range(3)}
    files.write_h5ad(path, layout)


def write_results(
    root,
    dataset="pbmc",
    n_cells=300,
    types=("B", "CD4 T", "NK", UNKNOWN),
    batches=("one", "two"),
    latents=("pca", "harmony", "scvi", "scanvi"),
    classifiers=("logistic", "knn", "scanvi"),
    seeds=(0, 1, 2),
    n_genes=60,
):
    """Write the results of one dataset below root; return paths and tables."""
    rng = np.random.default_rng(0)
    folder = root / dataset
    cells = make_cells(rng, n_cells, list(types), list(batches), n_genes)
    files.write_h5ad(folder / "data/cells.h5ad", cells)
    genes = pd.DataFrame({"gene": cells.var_names[5:25], "score": np.arange(20.0)})
    files.write_table(folder / "data/genes/seed0.tsv", genes)
    labelled = set(types) != {UNKNOWN}
    classifiers = classifiers if labelled else ()
    for seed in seeds:
        write_splits(rng, folder / f"data/splits/seed{seed}.tsv.gz", cells)
        for number, classifier in enumerate(classifiers):
            path = folder / f"labels/{classifier}/seed{seed}.tsv.gz"
            write_labels(rng, path, cells, 0.8 + 0.05 * number)
    for latent in latents:
        values = rng.normal(size=(n_cells, 5))
        write_latent(folder / f"latent/{latent}/seed0.h5ad", values[::-1], cells.obs_names[::-1])
        write_layout(rng, folder / f"cells/{latent}/seed0/umap.h5ad", cells, latent)
        clusters = pd.DataFrame({"cell": cells.obs_names})
        for resolution, n in ((0.25, 3), (1.0, 12)):
            clusters[f"leiden_{resolution}"] = rng.integers(0, n, n_cells)
        files.write_table(folder / f"cells/{latent}/seed0/clusters.tsv.gz", clusters)
    comparison = make_comparison(rng, latents, seeds, len(batches), labelled)
    is_cost = comparison["scope"].isna()
    summary = summarise_all(comparison[~is_cost], comparison[is_cost], equivalence=0.02)
    files.write_table(folder / "benchmark/comparison.tsv", comparison)
    files.write_table(folder / "benchmark/summary.tsv", summary)
    rules = ("before", "min_counts", "max_pct_mt", "doublet", "kept")
    removed = pd.DataFrame(
        [
            (batch, rule, n, n / 310)
            for batch in (*batches, "all")
            for rule, n in zip(rules, (310, 4, 5, 1, 300), strict=True)
        ],
        columns=["batch", "rule", "n_cells", "share"],
    )
    files.write_table(folder / "data/removed.tsv", removed)
    if labelled:
        files.write_table(folder / "labels/scores.tsv", make_scores(rng, classifiers, seeds))
    likelihood = None
    if "scvi" in latents:
        likelihood = folder / "benchmark/likelihood.tsv"
        files.write_table(likelihood, compare(make_likelihoods(seeds)))
    return SimpleNamespace(
        likelihood=likelihood,
        folder=folder,
        cells=cells,
        latents=latents,
        classifiers=classifiers,
        comparison=comparison,
        summary=summary,
    )


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """The results of one small dataset with two batches."""
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def make_results():
    """Return the function that writes results, for datasets of other shapes."""
    return write_results


def job_record(rule: str, inputs: dict, outputs: dict, number: int = 0, **changed) -> dict:
    """Return a record as `provenance.record` writes it."""
    return {
        "format": 1,
        "rule": rule,
        "wildcards": {"seed": str(number)},
        "inputs": inputs,
        "outputs": outputs,
        "params": {},
        "threads": 1,
        "started": f"2026-01-01T00:00:0{number}+00:00",
        "ended": f"2026-01-01T00:00:1{number}+00:00",
        "cost": {"wall_seconds": 1.0 + number, "cpu_seconds": 1.0, "peak_memory_mb": 200.0},
        "machine": {"cpu": ("Fast CPU", "Slow CPU")[number], "system": "Linux x86_64"},
        "versions": {"python": "3.11.9", "numpy": ("2.4.6", "2.4.5")[number]},
        "lock": "d" * 64,
        "commit": "c" * 40,
        **changed,
    }


@pytest.fixture(scope="session")
def made_by() -> list[dict]:
    """Return the records of a download and of two PCAs, one of a file of the user."""
    url = {"sample": {"source": "https://there/x.h5ad"}}
    web = {"resources/web/x.h5ad": "b" * 64}
    return [
        job_record("download_counts", {}, web, params=url),
        job_record("fit_pca", {"data/mine.h5ad": "a" * 64}, {"results/mine/pca.h5ad": "e" * 64}),
        job_record("fit_pca", web, {"results/web/pca.h5ad": "f" * 64}, 1),
    ]
