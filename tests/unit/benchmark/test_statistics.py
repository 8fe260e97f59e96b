"""Intervals, corrections and verdicts, against scipy and by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sclatent.benchmark.score import ALL_CELLS, LABEL_METRICS, METRICS, TEST_LABELS
from sclatent.benchmark.statistics import Difference, decide, holm, paired_difference, summarise


def score_rows(latent, values, kind="latent", seeds=(0, 1, 2)):
    """Rows of every metric with the same values."""
    return pd.DataFrame(
        [
            {
                "latent": latent,
                "kind": kind,
                "seed": seed,
                "metric": metric,
                "value": value,
                "n_cells": 100,
                "scope": TEST_LABELS if metric in LABEL_METRICS else ALL_CELLS,
                "n_rest": 300 if metric in LABEL_METRICS else 0,
                "note": "",
            }
            for metric in METRICS
            for seed, value in zip(seeds, values, strict=True)
        ]
    )


def summary_of(values, seeds=(0, 1, 2)):
    scores = pd.concat(
        [
            score_rows("pca", np.full(len(seeds), 0.5), seeds=seeds),
            score_rows("x", values, seeds=seeds),
        ]
    )
    return summarise(scores, 0.02).set_index(["latent", "metric"])


def test_without_correction_the_interval_is_the_paired_t_interval():
    differences = np.array([0.1, 0.2, 0.05, 0.12])
    found = paired_difference(differences)
    test = stats.ttest_1samp(differences, 0)
    interval = test.confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(test.pvalue)


def test_overlapping_splits_widen_the_interval_after_nadeau_and_bengio():
    differences = np.array([0.1, 0.2, 0.05, 0.12])
    plain, corrected = paired_difference(differences), paired_difference(differences, 0.25)
    width = (corrected.upper - corrected.lower) / (plain.upper - plain.lower)
    assert width == pytest.approx(np.sqrt(1 + 4 * 0.25))
    assert corrected.p > plain.p


def test_differences_without_spread_have_an_interval_without_width():
    assert paired_difference(np.zeros(3)) == Difference(0, 0, 0, 1)
    found = paired_difference(np.full(3, 0.1))
    assert (found.lower, found.upper, found.p) == pytest.approx((0.1, 0.1, 0))


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.01, 0.015, "no difference"),
        (0.005, 0.015, "no difference"),
        (-0.01, 0.1, "unclear"),
        (np.nan, np.nan, "unclear"),
    ],
)
def test_verdicts_follow_the_interval(lower, upper, verdict):
    assert decide(Difference((lower + upper) / 2, lower, upper), 0.02) == verdict


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls():
    found = holm(np.array([0.04, np.nan, 0.01, 0.03]))
    np.testing.assert_allclose(found, [0.06, np.nan, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_a_steady_gain_is_better_and_a_noisy_one_unclear():
    assert (summary_of([0.7, 0.71, 0.69]).loc["x", "verdict"] == "better").all()
    assert (summary_of([0.3, 0.31, 0.29]).loc["x", "verdict"] == "worse").all()
    assert (summary_of([0.9, 0.4, 0.6]).loc["x", "verdict"] == "unclear").all()


def test_an_equal_latent_has_no_difference():
    rows = summary_of([0.5, 0.5, 0.5]).loc["x"]
    assert (rows["verdict"] == "no difference").all()
    assert (rows["difference"] == 0).all()
    assert (rows["p_holm"] == 1).all()


def test_label_metrics_are_corrected_by_the_sizes_of_the_split_and_others_are_not():
    rows = summary_of([0.7, 0.72, 0.66]).loc["x"]
    width = rows["upper"] - rows["lower"]
    assert width["nmi"] / width["ilisi"] == pytest.approx(np.sqrt(1 + 3 * 100 / 300))


def test_the_order_of_the_seeds_does_not_matter():
    scores = pd.concat([score_rows("pca", [0.1, 0.5, 0.9]), score_rows("x", [0.2, 0.6, 1.0])])
    mixed = scores.sample(frac=1, random_state=0).sort_values("latent", kind="stable")
    expected = summarise(scores, 0.02)
    pd.testing.assert_frame_equal(summarise(mixed, 0.02), expected)
    assert expected.loc[expected["latent"] == "x", "difference"].tolist() == pytest.approx(
        [0.1] * 7
    )


def test_one_seed_is_unclear_and_says_so():
    rows = summary_of([0.9], seeds=(4,)).loc["x"]
    assert (rows["verdict"] == "unclear").all()
    assert (rows["note"] == "one seed: no interval").all()
    assert rows["difference"].tolist() == pytest.approx([0.4] * 7)


def test_the_baseline_controls_and_undefined_metrics_have_no_verdict():
    control = score_rows("shuffled", [0.1] * 3, kind="control")
    latents = [score_rows("pca", [0.5] * 3), score_rows("x", [0.7, 0.71, 0.69])]
    scores = pd.concat([*latents, control], ignore_index=True)
    undefined = scores["metric"] == "ilisi"
    scores.loc[undefined, "value"] = np.nan
    scores.loc[undefined, "note"] = "single batch"
    table = summarise(scores, 0.02).set_index(["latent", "metric"])
    assert table.loc[("pca", "nmi"), "verdict"] == "baseline"
    assert table.loc[("shuffled", "nmi"), "verdict"] == "n/a"
    assert table.loc[("x", "ilisi"), "verdict"] == "n/a"
    assert table.loc[("x", "ilisi"), "note"] == "single batch"
    assert table.loc[("x", "ilisi"), "n_seeds"] == 0
    assert table.loc[("x", "nmi"), "verdict"] == "better"


def test_one_metric_that_stands_out_by_chance_is_unclear():
    random = np.random.default_rng(0)
    rows = []
    for metric in METRICS:
        for seed in range(3):
            base = {"metric": metric, "seed": seed, "scope": "all cells", "n_cells": 100}
            base |= {"n_rest": 0, "note": ""}
            rows.append(base | {"latent": "pca", "kind": "latent", "value": 0.5})
            shift = 0.1 + 0.04 * (seed - 1) if metric == "nmi" else random.normal(0, 0.1)
            rows.append(base | {"latent": "x", "kind": "latent", "value": 0.5 + shift})
    table = summarise(pd.DataFrame(rows), 0.02).set_index(["latent", "metric"])
    found = table.loc[("x", "nmi")]
    assert found["lower"] > 0
    assert found["p_holm"] > 0.05
    assert found["verdict"] == "unclear"
