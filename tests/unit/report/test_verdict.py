import numpy as np
import pandas as pd
import pytest

from sclatent.benchmark.statistics import METRICS, summarise
from sclatent.report.verdict import (
    Comparison,
    answer,
    best_sentence,
    sentences,
    standing,
    verdict_text,
)

NOISE = np.array([0.0, 0.002, -0.002, 0.001, -0.001])


def scores_of(n_seeds=5, noise=1.0, note="", **latents):
    """Return a comparison; each latent is {metric: mean}, what is left out is not defined."""
    rows = []
    for number, (latent, means) in enumerate(latents.items()):
        for metric in METRICS:
            for seed in range(n_seeds):
                value = means.get(metric, np.nan) + noise * NOISE[(seed + number) % 5]
                rows.append((latent, "latent", seed, metric, value, 100, "all cells", 400, note))
    columns = ["latent", "kind", "seed", "metric", "value", "n_cells", "scope", "n_rest", "note"]
    comparison = pd.DataFrame(rows, columns=columns)
    return Comparison(summarise(comparison, 0.02), comparison, 0.02)


PCA = {"knn_accuracy": 0.84, "ilisi": 0.0, "preservation": 0.46}
HARMONY = {"knn_accuracy": 0.90, "ilisi": 0.30, "preservation": 0.45}
SCVI = {"knn_accuracy": 0.84, "ilisi": 0.30, "preservation": 0.22}


def test_the_winner_of_each_task_is_named_with_its_interval():
    sentence = best_sentence("pbmc", scores_of(pca=PCA, harmony=HARMONY))
    assert sentence.startswith("pbmc: Harmony mixes batches best (iLISI 0.300, PCA 0.000")
    assert "difference +0.300 [" in sentence
    assert "Harmony tells types apart best" in sentence


def test_pca_is_said_to_win_when_all_others_are_worse():
    sentence = best_sentence("pbmc", scores_of(pca=PCA, scvi=SCVI))
    assert "PCA keeps neighbourhoods best (neighbourhood preservation 0.460" in sentence


def test_no_winner_is_named_when_no_latent_is_better_than_pca():
    sentence = best_sentence("pbmc", scores_of(pca=PCA, scvi=PCA))
    assert "no latent is shown to be better than PCA" in sentence
    assert " best " not in sentence


def test_latents_that_cannot_be_told_apart_are_named_together():
    sentence = best_sentence("pbmc", scores_of(pca=PCA, harmony=HARMONY, scvi=SCVI))
    assert "mixes batches best" in sentence
    assert "not clearly behind" in sentence.split(";")[0]


def test_harmony_is_enough_when_it_wins_and_loses_nothing():
    text = answer(scores_of(pca=PCA, harmony=HARMONY, scvi=SCVI))
    assert text.startswith("Needs a VAE? No")
    assert "Harmony is enough, and better than PCA at kNN label accuracy and iLISI" in text


def test_pca_alone_is_enough_when_nothing_beats_it():
    text = answer(scores_of(pca=PCA, harmony=PCA, scvi=PCA))
    assert text.startswith("Needs a VAE? No")
    assert "PCA alone is enough" in text


def test_a_model_must_beat_harmony_and_not_pca_alone():
    strong = SCVI | {"knn_accuracy": 0.87}
    assert answer(scores_of(pca=PCA, scvi=strong)).startswith("Needs a VAE? For some things")
    assert answer(scores_of(pca=PCA, harmony=HARMONY, scvi=strong)).startswith("Needs a VAE? No")


def test_gains_are_told_with_their_price_and_the_use_of_labels():
    taught = SCVI | {"knn_accuracy": 0.95}
    text = answer(scores_of(pca=PCA, harmony=HARMONY, scanvi=taught))
    assert "scANVI, which learns from the training labels, is better at kNN label accuracy" in text
    assert "but worse at neighbourhood preservation" in text


def test_one_seed_leaves_the_question_open():
    text = answer(scores_of(n_seeds=1, pca=PCA, harmony=HARMONY, scvi=SCVI))
    assert text.startswith("Needs a VAE? One seed cannot say")
    assert "enough" not in text


def test_noise_leaves_the_question_open():
    text = answer(scores_of(noise=40, pca=PCA, scvi=PCA))
    assert text.startswith("Needs a VAE? Not shown")


def test_without_a_count_model_there_is_no_answer():
    assert "cannot say" in answer(scores_of(pca=PCA, harmony=HARMONY))


def test_a_single_batch_without_labels_can_be_described():
    only = {"preservation": 0.5}
    scores = scores_of(pca=only, harmony=only, scvi={"preservation": 0.3})
    sentence = best_sentence("mine", scores)
    assert "iLISI and kNN label accuracy are not defined" in sentence
    assert answer(scores).startswith("Needs a VAE? No")


def test_unmeasured_datasets_and_unknown_latents_do_not_break_the_sentences():
    assert "nothing could be measured" in best_sentence("mine", scores_of(pca={}, scvi={}))
    assert "cannot say" in answer(scores_of(pca={}, scvi={}))
    assert "mine keeps" not in best_sentence("a", scores_of(pca=PCA, mine=PCA))


def test_the_note_of_a_metric_is_passed_on():
    scores = scores_of(note="within one batch", pca=PCA, scvi=SCVI | {"knn_accuracy": 0.95})
    assert "kNN label accuracy within one batch 0.950" in best_sentence("a", scores)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["better", "better"], "ahead"),
        (["better", "worse"], "behind"),
        (["better", "no difference"], "level"),
        (["better", "unclear"], "unclear"),
    ],
)
def test_a_model_stands_where_the_strongest_baseline_puts_it(verdicts, expected):
    assert standing(verdicts) == expected


def test_the_text_ends_with_the_place_of_the_report():
    text = verdict_text([("a: one.", "two."), ("b: three.", "four.")], "results/report.html")
    assert text.splitlines() == [
        "a: one.",
        "  two.",
        "b: three.",
        "  four.",
        "Report: results/report.html",
    ]


def test_imported_models_are_said_to_have_an_advantage():
    scores = scores_of(pca=PCA, scvi=SCVI)
    _, plain = sentences("pbmc", scores)
    _, said = sentences("pbmc", scores, ["scvi", "scanvi_atlas"])
    assert said.startswith(plain)
    assert "scVI and scANVI atlas were trained elsewhere: they may have seen held-out" in said
