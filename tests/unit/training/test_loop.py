from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sclatent.training.loader import Cells
from sclatent.training.loop import Diverged, Loss, fit
from sclatent.training.plan import Schedule, Training


class Mean(nn.Module):
    """Learns the mean of the counts; its validation loss can be made to rise again."""

    def __init__(self, diverge_at=None):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.steps, self.diverge_at = 0, diverge_at

    def loss(self, minibatch, kl_weight, done=1.0):
        self.steps += self.training
        error = (minibatch.counts - self.value).square().mean()
        if self.steps == self.diverge_at:
            error = error * float("nan")
        return Loss(error, error, torch.zeros(()))


@pytest.fixture
def cells():
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, (50, 4)).astype(np.int32))
    return Cells(counts, np.zeros(50, int), np.full(50, -1), ["a"])


TRAIN, VALIDATION = np.arange(40), np.arange(40, 50)


@pytest.mark.parametrize("n_steps", [1, 7, 100, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.99])
def test_the_kl_weight_grows_and_is_one_at_the_end(n_steps, warmup):
    schedule = Schedule(1, n_steps, Training(warmup=warmup))
    weights = []
    for _ in range(n_steps):
        weights.append(schedule.kl_weight)
        schedule.advance()
    assert weights == sorted(weights)
    assert schedule.kl_weight == 1
    if n_steps >= 100 and warmup:
        assert weights[0] < 0.1


def test_the_learning_rate_rises_to_its_largest_value_and_falls_to_nothing():
    schedule = Schedule(10, 20, Training(learning_rate=0.01))
    rates = []
    for _ in range(200):
        rates.append(schedule.learning_rate)
        schedule.advance()
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(("n_cells", "expected"), [(100, 100), (25_600, 30), (10_000_000, 10)])
def test_the_epochs_follow_from_the_steps_within_their_bounds(n_cells, expected):
    assert Training(n_steps=3000).n_epochs(n_cells) == expected


def test_it_keeps_the_weights_of_the_best_epoch(cells):
    model = Mean()
    curve = fit(model, cells, TRAIN, VALIDATION, Training(minibatch=20, n_steps=60), seed=0)
    kept = [row for row in curve if row["best"]]
    assert len(kept) == 1
    assert kept[0]["validation_loss"] == min(
        row["validation_loss"] for row in curve if row["kl_weight"] >= 1
    )
    error = np.square(cells.counts[VALIDATION].toarray() - model.value.item()).mean()
    assert kept[0]["validation_loss"] == pytest.approx(error, rel=1e-5)


def test_it_stops_when_nothing_gets_better(cells, capsys):
    plan = Training(minibatch=20, n_steps=4000, max_epochs=2000, patience=3, learning_rate=0.5)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, plan, seed=0)
    assert len(curve) < 2000
    assert "no better validation loss in 3 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("keep", ["best", "last"])
def test_patience_ends_the_training_whatever_is_kept(cells, keep):
    plan = Training(minibatch=20, n_steps=400, max_epochs=200, patience=3, learning_rate=0.5)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, replace(plan, keep=keep, warmup=0), seed=0)
    losses = [row["validation_loss"] for row in curve]
    assert len(curve) == 1 + np.argmin(losses) + 3 < 200
    kept = [row["epoch"] for row in curve if row["best"]]
    assert kept == [1 + np.argmin(losses) if keep == "best" else len(curve)]


def test_no_patience_during_the_warm_up(cells):
    plan = Training(minibatch=20, n_steps=400, max_epochs=200, patience=1, learning_rate=0.5)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, replace(plan, keep="last", warmup=0.5), seed=0)
    assert 100 <= len(curve) < 200


def test_where_the_warm_up_never_ends_the_last_epoch_is_kept(cells):
    plan = Training(minibatch=20, n_steps=20, warmup_epochs=400)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, plan, seed=0)
    assert [row["epoch"] for row in curve if row["best"]] == [len(curve)]


@pytest.mark.parametrize(("margin", "falls"), [(0.5, True), (0.05, False)])
def test_a_plateau_ends_with_a_loss_better_by_the_margin(margin, falls):
    schedule = Schedule(10, 1, Training(schedule="plateau", plateau=3, plateau_margin=margin))
    for loss in (10.0, 9.9, 9.8, 9.7):
        schedule.consider(loss)
    assert schedule.learning_rate == pytest.approx(0.004 * (0.1 if falls else 1))


def test_a_loss_that_is_not_finite_ends_training_with_the_step(cells):
    with pytest.raises(Diverged, match=r"step 5 of 60.*lower training.learning_rate"):
        fit(Mean(5), cells, TRAIN, VALIDATION, Training(minibatch=20, n_steps=60), seed=0)


def test_progress_names_epoch_loss_and_time_left(cells, capsys):
    fit(Mean(), cells, TRAIN, VALIDATION, Training(minibatch=20, n_steps=80), seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert 20 <= len(lines) <= 25
    assert "epoch 1/40  loss" in lines[0]
    assert "s left" in lines[0]
