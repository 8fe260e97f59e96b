import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.benchmark.likelihood import compare, read_likelihoods
from sclatent.benchmark.statistics import paired_difference

NULL = {0: -500.0, 1: -510.0, 2: -505.0}
VALUES = {
    "dca": {0: -300.0, 1: -310.0, 2: -305.0},
    "scvi": {0: -400.0, 1: -411.0, 2: -404.0},
    "scanvi": {0: -402.0, 1: -412.0, 2: -407.0},
}


def rows_of(seeds=(0, 1, 2)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": "encoded" if latent == "dca" else "marginal",
            "n_cells": 80,
            "n_train": 640,
            "n_samples": 100,
            "elbo": values[seed] - 2,
            "log_likelihood": values[seed],
            "null": NULL[seed],
            "ess_median": 0.1,
            "ess_minimum": 0.02 + seed / 100,
            "latent": latent,
            "seed": seed,
        }
        for latent, values in VALUES.items()
        for seed in seeds
    )


def row(table, latent, against=""):
    found = table[(table["latent"] == latent) & (table["against"] == against)]
    assert len(found) == 1
    return found.iloc[0]


def test_models_are_compared_within_each_seed():
    table = compare(rows_of())
    difference = row(table, "scanvi", "scvi")
    expected = paired_difference(np.array([-2.0, -1.0, -3.0]), 80 / 640)
    assert difference["mean"] == pytest.approx(-2)
    assert difference["lower"] == pytest.approx(expected.lower)
    assert difference["upper"] == pytest.approx(expected.upper)
    assert row(table, "scvi", "null")["mean"] == pytest.approx(100)


def test_every_model_has_its_mean_and_interval():
    table = compare(rows_of())
    scvi = row(table, "scvi")
    assert scvi["mean"] == pytest.approx(-405)
    assert scvi["lower"] < -405 < scvi["upper"]
    assert scvi["elbo"] == pytest.approx(-407)
    assert scvi["ess_minimum"] == pytest.approx(0.02)
    assert row(table, "null")["mean"] == pytest.approx(-505)


def test_a_value_given_the_cells_own_counts_is_compared_with_nothing():
    table = compare(rows_of())
    assert row(table, "dca")["kind"] == "encoded"
    pairs = table[table["against"] != ""]
    assert set(map(tuple, pairs[["latent", "against"]].to_numpy())) == {
        ("scvi", "null"),
        ("scanvi", "null"),
        ("scanvi", "scvi"),
    }


def test_one_seed_has_no_interval():
    table = compare(rows_of(seeds=[1]))
    assert table[["lower", "upper"]].isna().all().all()
    assert row(table, "scanvi", "scvi")["mean"] == pytest.approx(-1)


def test_dca_alone_stands_beside_the_null_model():
    rows = rows_of()
    table = compare(rows[rows["latent"] == "dca"])
    assert table["latent"].tolist() == ["null", "dca"]


def test_files_are_read_in_the_order_of_latents_and_seeds(tmp_path):
    rows, paths = rows_of(), []
    for number in range(len(rows)):
        paths.append(tmp_path / f"{number}.tsv")
        files.write_table(paths[-1], rows.iloc[[number]].drop(columns=["latent", "seed"]))
    found = read_likelihoods(paths, list(VALUES), [0, 1, 2])
    expected = rows.reset_index(drop=True)
    pd.testing.assert_frame_equal(found[rows.columns], expected, check_dtype=False)
