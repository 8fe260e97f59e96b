"""The tables of the comparison."""

import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.benchmark.comparison import gather, read_costs, read_scores, summarise_all
from sclatent.benchmark.score import ALL_CELLS, METRICS
from sclatent.errors import InputError


def score_file(path, latent, seed, value):
    rows = {"latent": latent, "seed": seed, "metric": list(METRICS), "value": value}
    table = pd.DataFrame(rows | {"n_cells": 50, "scope": ALL_CELLS, "n_rest": 0, "note": ""})
    table.loc[table["metric"] == "ilisi", ["value", "note"]] = [np.nan, "single batch"]
    files.write_table(path, table)
    return path


@pytest.fixture
def tables(tmp_path):
    def scores_of(latent, value):
        return [score_file(tmp_path / f"{latent}{s}.tsv", latent, s, value + s) for s in (0, 1)]

    costs = []
    for latent in ("pca", "harmony"):
        for seed in (0, 1):
            costs.append(tmp_path / f"{latent}{seed}.json")
            cost = {"wall_seconds": 10 * seed, "cpu_seconds": 1, "peak_memory_mb": len(latent)}
            files.write_json(costs[-1], cost)
    scores = read_scores(scores_of("pca", 0.1) + scores_of("harmony", 0.2), scores_of("labels", 1))
    return scores, read_costs(costs, ["pca", "harmony"], [0, 1], {"harmony": "pca"})


def test_the_comparison_holds_scores_and_costs_of_latents_and_controls(tables):
    table = gather(*tables)
    assert len(table) == 3 * 2 * 7 + 2 * 2 * 3
    assert set(table.loc[table["latent"] == "labels", "kind"]) == {"control"}
    memory = table[table["metric"] == "peak_memory_mb"].set_index(["latent", "seed"])["value"]
    assert memory[("harmony", 1)] == 7
    assert set(table.loc[table["latent"] == "harmony", "on_top_of"]) == {"pca"}
    assert set(table.loc[table["latent"] == "pca", "on_top_of"]) == {""}


def test_the_summary_compares_latents_and_averages_costs(tables):
    table = summarise_all(*tables, equivalence=0.02).set_index(["latent", "metric"])
    assert table.loc[("harmony", "nmi"), "difference"] == pytest.approx(0.1)
    assert table.loc[("harmony", "nmi"), "verdict"] == "better"
    assert table.loc[("harmony", "ilisi"), "note"] == "single batch"
    assert table.loc[("harmony", "wall_seconds"), "mean"] == 5
    assert table.loc[("harmony", "wall_seconds"), "verdict"] == "n/a"
    assert table.loc[("harmony", "wall_seconds"), "on_top_of"] == "pca"


def test_the_tables_come_back_from_their_files(tables, tmp_path):
    summary = summarise_all(*tables, equivalence=0.02)
    files.write_table(tmp_path / "summary.tsv", summary)
    back = files.read_table(tmp_path / "summary.tsv")
    assert back.columns.tolist() == summary.columns.tolist()
    assert back["verdict"].tolist() == summary["verdict"].tolist()


def test_a_comparison_without_its_baseline_is_refused(tables):
    scores, costs = tables
    with pytest.raises(InputError, match="no 'pca' to compare"):
        summarise_all(scores[scores["latent"] != "pca"], costs, 0.02)
