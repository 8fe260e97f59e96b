from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sclatent.training.loader import Cells
from sclatent.training.loop import Diverged, Loss, clip, evaluate, fit, predict
from sclatent.training.plan import Schedule, Training


class Mean(nn.Module):
    """Learns the mean of the counts; its validation loss can be made to rise again."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.steps = 0

    def loss(self, minibatch, kl_weight, done=1.0):
        self.steps += self.training
        error = (minibatch.counts - self.value).square().mean()
        return Loss(error, error, torch.zeros(()))


@pytest.fixture
def cells():
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, (50, 4)).astype(np.int32))
    return Cells(counts, np.zeros(50, int), np.full(50, -1), ["a"])


TRAIN, VALIDATION = np.arange(40), np.arange(40, 50)


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


def test_it_winds_down_when_nothing_gets_better(cells, capsys):
    plan = Training(minibatch=20, n_steps=4000, max_epochs=2000, patience=3, learning_rate=0.5)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, replace(plan, cooldown=0.01, smoothing=0), seed=0)
    losses, rates = ([row[name] for row in curve] for name in ("validation_loss", "learning_rate"))
    turn = len(curve) - 20
    assert 500 < turn < 1000
    assert min(losses[turn - 3 : turn]) >= min(losses[500 : turn - 3])
    assert max(rates[turn - 3 :]) > 0.3
    assert rates[-1] < 0.01
    assert "no better validation loss in 3 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("keep", ["best", "last"])
def test_without_a_cooldown_patience_ends_the_training_whatever_is_kept(cells, keep):
    plan = Training(minibatch=20, n_steps=400, max_epochs=200, patience=3, learning_rate=0.5)
    plan = replace(plan, keep=keep, warmup=0, smoothing=0, cooldown=0)
    curve = fit(Mean(), cells, TRAIN, VALIDATION, plan, seed=0)
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
    assert schedule.learning_rate == pytest.approx(0.008 * (0.1 if falls else 1))


SHORT = Training(minibatch=20, n_steps=60)


class Breaks(Mean):
    """Breaks in one term of the loss, in a weight or in a gradient, at the fifth step each time."""

    def __init__(self, where: str):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2))
        self.where, self.rows = where, None

    def loss(self, minibatch, kl_weight, done=1.0):
        error = super().loss(minibatch, kl_weight, done).total
        self.rows = minibatch.rows.tolist()
        terms = dict.fromkeys(("total", "reconstruction", "KL", "opponent"), error)
        breaks = self.training and done == 4 / 60
        if breaks and self.where in terms:
            terms[self.where] = error * float("nan")
        if breaks and self.where == "weight":
            self.unused.data[1] = float("inf")
            terms["total"] = error + self.unused.sum()
        if breaks and self.where == "gradient":
            terms["total"] = error + (self.unused.square().sum()).sqrt()  # finite, its slope is not
        return Loss(*terms.values())


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("total", "the loss (total nan) is not finite"),
        ("reconstruction", "the loss (reconstruction nan) is not finite"),
        ("KL", "the loss (KL nan) is not finite"),
        ("opponent", "the loss (opponent nan) is not finite"),
        ("weight", "the weight unused is not finite"),
        ("gradient", "a gradient is not finite"),
        ("gradient", "the gradient of unused is not finite"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_names_the_term_weight_place_and_cells(
    cells, where, says
):
    model = Breaks(where)
    with pytest.raises(Diverged) as caught:
        fit(model, cells, TRAIN, VALIDATION, SHORT, seed=0)
    message = str(caught.value)
    assert says in message
    assert "epoch 3, step 5 of 60" in message
    assert f"20 cells, in rows {', '.join(map(str, model.rows[:5]))}, ..." in message
    assert message.endswith("lower training.learning_rate")
    assert torch.isfinite(model.value)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_is_found_whether_or_not_it_is_clipped(cells, clip_norm):
    plan = replace(SHORT, clip_norm=clip_norm)
    with pytest.raises(Diverged, match="gradient of unused"):
        fit(Breaks("gradient"), cells, TRAIN, VALIDATION, plan, seed=0)


def test_a_validation_loss_that_is_not_finite_names_the_cells(cells):
    model = Mean()
    model.value.data.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"the validation cells; the weight value.*rows 40, 41"):
        evaluate(model, cells, VALIDATION, 20, 0)


def test_the_gradient_is_clipped_by_its_norm_group_by_group():
    layers = nn.ModuleList([nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)])
    groups = [{"params": layer.parameters()} for layer in layers]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    for limit, expected in ((0.0, (5.0, 0.5)), (10.0, (5.0, 0.5)), (1.0, (1.0, 0.5))):
        layers[0].weight.grad = torch.tensor([[3.0, 0.0, -4.0]])
        layers[1].weight.grad = torch.tensor([[0.3, 0.0, -0.4]])
        assert clip(optimiser, Training(clip_norm=limit)) == pytest.approx(5.5)
        norms = [layer.weight.grad.norm().item() for layer in layers]
        assert norms == pytest.approx(expected, rel=1e-5)
    clip(optimiser, Training(clip_norm=0.0, clip_value=0.35))
    assert layers[1].weight.grad.abs().max().item() == pytest.approx(0.35)


def test_the_validation_loss_is_at_a_kl_weight_of_one_and_draws_the_same_noise(cells):
    class Noisy(Mean):
        def loss(self, minibatch, kl_weight, done=1.0):
            assert kl_weight == 1
            assert not self.training
            value = torch.randn(()) + minibatch.counts.mean()
            return Loss(value, value, value)

    state = torch.get_rng_state()
    first = evaluate(Noisy(), cells, VALIDATION, 4, 0)
    assert first == evaluate(Noisy(), cells, VALIDATION, 4, 0)
    assert first != evaluate(Noisy(), cells, VALIDATION, 4, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_the_mean_loss_weighs_every_cell_alike(cells):
    model = Mean()
    losses = [evaluate(model, cells, VALIDATION, size, 0).total for size in (3, 4, 10)]
    assert losses == pytest.approx([cells.counts[VALIDATION].power(2).mean()] * 3)


def test_predictions_are_in_the_order_of_the_cells(cells):
    found = predict(lambda minibatch: minibatch.counts, cells, size=7)
    assert np.array_equal(found, cells.counts.to_csr().toarray())


def test_progress_names_epoch_loss_and_time_left(cells, capsys):
    fit(Mean(), cells, TRAIN, VALIDATION, Training(minibatch=20, n_steps=80), seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert 20 <= len(lines) <= 25
    assert "epoch 1/40  loss" in lines[0]
    assert "s left" in lines[0]
