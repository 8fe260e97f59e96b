import math

import pytest
import torch
from torch import nn

from sclatent.training.plan import Schedule, Training


def weights_of(schedule: Schedule) -> list[float]:
    found = []
    for _ in range(schedule.n_steps):
        found.append(schedule.kl_weight)
        schedule.advance()
    return found


@pytest.mark.parametrize("n_steps", [1, 7, 100, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.99, 1.0])
def test_the_kl_weight_grows_and_is_one_at_the_end(n_steps, warmup):
    schedule = Schedule(1, n_steps, Training(warmup=warmup))
    weights = weights_of(schedule)
    assert weights == sorted(weights)
    assert weights[-1] == schedule.kl_weight == 1
    if n_steps >= 100 and warmup:
        assert weights[0] < 0.1
        assert weights.index(1) == math.ceil(warmup * n_steps) - 1


@pytest.mark.parametrize(
    ("n_epochs", "last"), [(20, 0.0475), (240, 0.5975), (401, 1.0), (500, 1.0)]
)
def test_the_warm_up_of_scvi_tools_takes_epochs_whether_or_not_there_are_so_many(n_epochs, last):
    weights = weights_of(Schedule(n_epochs, 3, Training(warmup_epochs=400)))
    assert weights[-1] == pytest.approx(last)
    assert weights[:6] == [0, 0, 0, 1 / 400, 1 / 400, 1 / 400]


@pytest.mark.parametrize("n_cells", [2, 700, 33_000, 100_000, 1_000_000])
def test_the_epochs_of_scvi_tools_are_those_of_its_rule(n_cells):
    plan = Training(cells_seen=8_000_000, min_epochs=1, max_epochs=400, minibatch=128)
    expected = max(1, min(round(20_000 / n_cells * 400), 400))
    n_validation = n_cells // 10
    assert plan.n_epochs(n_cells - n_validation, n_validation) == expected


@pytest.mark.parametrize(("n_cells", "expected"), [(100, 50), (12_800, 30), (10_000_000, 10)])
def test_the_epochs_follow_from_the_steps_within_their_bounds(n_cells, expected):
    assert Training(n_steps=3000).n_epochs(n_cells) == expected


def test_the_learning_rate_rises_to_its_largest_value_and_falls_to_nothing():
    schedule, rates = Schedule(10, 20, Training(learning_rate=0.01)), []
    for _ in range(200):
        rates.append(schedule.learning_rate)
        schedule.advance()
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[-1] < 1e-5
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_constant_learning_rate_stays():
    schedule = Schedule(10, 20, Training(learning_rate=0.01, schedule="constant"))
    for loss in (3.0, 4.0, 5.0) * 20:
        schedule.consider(loss)
        schedule.advance()
        assert schedule.learning_rate == 0.01


def test_on_a_plateau_the_learning_rate_falls_to_a_tenth():
    plan = Training(learning_rate=0.01, schedule="plateau", plateau=3)
    schedule, rates = Schedule(10, 20, plan), []
    for loss in (5, 4, 4, 4, 4, 3, 3, 3, 3):
        schedule.consider(loss)
        rates.append(schedule.learning_rate)
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 4 + [0.0001])


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("rmsprop", "RMSprop")])
def test_the_optimiser_is_the_one_named_with_its_settings(name, kind):
    plan = Training(optimiser=name, learning_rate=0.02, epsilon=0.3, weight_decay=0.4)
    (group,) = plan.optimise(nn.Linear(2, 2)).param_groups
    assert type(plan.optimise(nn.Linear(2, 2))).__name__ == kind
    assert (group["lr"], group["eps"], group["weight_decay"]) == (0.02, 0.3, 0.4)


def test_one_step_of_adam_is_that_of_its_formula():
    model, plan = nn.Linear(1, 1, bias=False), Training(learning_rate=0.1, weight_decay=0.0)
    start, optimiser = model.weight.item(), plan.optimise(model)
    (model(torch.ones(1, 1)) * 0.02).sum().backward()
    optimiser.step()
    assert model.weight.item() == pytest.approx(start - 0.1 * 0.02 / (0.02 + 0.01), abs=1e-6)


def test_the_place_in_training_counts_epochs_and_steps_from_one():
    schedule, places = Schedule(2, 2, Training()), []
    for _ in range(4):
        places.append(schedule.place)
        schedule.advance()
    assert places[0] == "epoch 1, step 1 of 4"
    assert places[2:] == ["epoch 2, step 3 of 4", "epoch 2, step 4 of 4"]
    assert schedule.done == 1
    assert schedule.place == places[-1]


@pytest.mark.parametrize("name", ["cosine", "constant", "plateau"])
def test_a_reduction_holds_for_the_learning_rate_of_every_step(name):
    plain, reduced = (Schedule(5, 8, Training(schedule=name, plateau=1)) for _ in range(2))
    reduced.reduction = 1 / 3
    for step in range(40):
        assert reduced.learning_rate == pytest.approx(plain.learning_rate / 3)
        for schedule in (plain, reduced):
            schedule.consider(step % 3)
            schedule.advance()


@pytest.mark.parametrize("name", ["cosine", "constant", "plateau"])
def test_a_training_that_winds_down_ends_early_with_steps_of_nothing(name):
    plan = Training(schedule=name, cooldown=0.2, warmup=0.25)
    schedule, undisturbed, rates = Schedule(20, 8, plan), Schedule(20, 8, plan), []
    for _ in range(80):
        schedule.advance()
        undisturbed.advance()
    schedule.wind_down()
    assert schedule.learning_rate == undisturbed.learning_rate
    assert schedule.n_steps == 80 + 4 * 8
    while schedule.step < schedule.n_steps:
        schedule.wind_down()  # once is enough
        assert schedule.kl_weight == 1
        rates.append(schedule.learning_rate)
        schedule.advance()
    assert len(rates) == 32
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01 * undisturbed.learning_rate
    assert schedule.done == 1


def test_winding_down_makes_no_training_longer():
    schedule = Schedule(10, 8, Training(cooldown=0.5))
    for _ in range(72):
        schedule.advance()
    schedule.wind_down()
    assert schedule.n_steps == 80


def test_the_state_of_a_schedule_can_be_put_into_another():
    one, other = (Schedule(5, 8, Training(schedule="plateau", plateau=1)) for _ in range(2))
    for loss in (3.0, 4.0, 2.0, 2.0):
        one.advance()
        one.consider(loss)
    one.wind_down()
    vars(other).update(one.state())
    assert vars(other) == vars(one)
    assert other.learning_rate == one.learning_rate == pytest.approx(0.008 * 0.01)
