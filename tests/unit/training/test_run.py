import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sclatent import files
from sclatent.training import run as run_module
from sclatent.training.checkpoint import Checkpoint
from sclatent.training.loader import Cells
from sclatent.training.loop import Diverged, Loss, fit, start
from sclatent.training.plan import Training
from sclatent.training.run import Best

NAMES = [
    *("scvi", "scvi options", "scvi that stops early"),
    *("scanvi", "scanvi of the paper", "dca"),
]


class Killed(BaseException):
    """The process is gone."""


class Mortal(Checkpoint):
    """Writes after some steps, and dies after another one."""

    def __init__(self, path, writes=(), dies=None):
        super().__init__(path, lambda: "same")
        self.writes, self.dies = writes, dies

    def consider(self, run):
        if run.schedule.step in self.writes:
            self.write(run)
        if run.schedule.step == self.dies:
            raise Killed


@pytest.fixture(scope="module")
def whole():
    """Return what each training ends with when nothing happens to it."""
    found = {}

    def whole(name, train):
        if name not in found:
            found[name] = train(name)
        return found[name]

    return whole


@pytest.mark.parametrize("name", ["scvi", "scanvi", "dca"])
def test_a_training_with_a_life_per_step_ends_bit_identical(train, whole, name, tmp_path, capsys):
    path, step, found = tmp_path / "c", 0, None
    while found is None:
        step += 1
        try:
            found = train(name, Mortal(path, {step}, step))
        except Killed:
            assert step <= 40
    assert found == whole(name, train)
    assert step > 10
    assert f"going on from {path}, at epoch 2, step 5 of 40" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NAMES)
def test_a_training_killed_at_random_steps_ends_bit_identical(train, whole, name, seed, tmp_path):
    draw, found, lives = random.Random(seed), None, 0
    while found is None:
        lives += 1
        writes = set(draw.sample(range(1, 41), 8))
        try:
            found = train(name, Mortal(tmp_path / "c", writes, draw.randint(1, 20 * lives)))
        except Killed:
            assert lives < 20
    assert found == whole(name, train)


def test_a_training_killed_while_it_writes_goes_on_from_the_file_before(
    train, whole, tmp_path, monkeypatch, capsys
):
    path, synced = tmp_path / "c", os.fsync
    with pytest.raises(Killed):
        train("scvi", Mortal(path, {3}, 4))

    def die(descriptor):
        raise Killed

    monkeypatch.setattr(files.os, "fsync", die)
    with pytest.raises(Killed):
        train("scvi", Mortal(path, {7}))
    monkeypatch.setattr(files.os, "fsync", synced)
    assert not path.exists()
    assert train("scvi", Mortal(path)) == whole("scvi", train)
    assert f"going on from {path}.before, at epoch 1, step 4 of 40" in capsys.readouterr().out


def in_a_process(folder: Path, *names: str) -> subprocess.Popen:
    """Train in a process of its own."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[2] / "scripts")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from conftest import main; main()", str(folder), *names]
    folder.mkdir(exist_ok=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def test_two_processes_end_bit_identical_though_one_is_killed_at_random_moments(tmp_path):
    names = ("scvi", "scanvi", "dca")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = in_a_process(whole, *names)
    said = kill_at_random(killed, names)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    for name in names:
        assert (whole / f"{name}.txt").read_text() == (killed / f"{name}.txt").read_text()
    assert "going on from" in said
    assert sorted(path.name for path in killed.iterdir()) == sorted(f"{n}.txt" for n in names)


def kill_at_random(folder: Path, names) -> str:
    """Train, killed at moments drawn from a seed while it writes; return what it said."""
    draw, said = random.Random(0), ""
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = written(folder)
        process = in_a_process(folder, *names)
        while process.poll() is None and written(folder) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(number)
        output = process.communicate()[0]
        stopped = number == signal.SIGTERM and "SIGTERM: stopped before epoch" in output
        assert process.returncode == (75 if stopped else -number), output
        said += output
    last = in_a_process(folder, *names)
    said += last.communicate()[0]
    assert last.returncode == 0, said
    return said


def written(folder: Path) -> set:
    """Return which checkpoints lie in a folder; each write makes a new file."""
    folder.mkdir(exist_ok=True)
    return {(entry.name, entry.inode()) for entry in os.scandir(folder) if "before" in entry.name}


class Steady(nn.Module):
    """Moves by the learning rate in each step; breaks in the second half if that is over 0.05."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.register_buffer("before", torch.zeros(()))

    def loss(self, minibatch, kl_weight, done=1.0):
        loss = self.value + 0 * minibatch.counts.mean()
        if self.training:
            moved = (self.value - self.before).abs().item()
            self.before.copy_(self.value.detach())
            loss = loss * (float("nan") if done > 0.5 and moved > 0.05 else 1)
        return Loss(loss, loss, torch.zeros(()))


CELLS = Cells(csr_matrix(np.ones((50, 4), np.int32)), np.zeros(50, int), np.full(50, -1), ["a"])
STEADY = {"n_steps": 60, "schedule": "constant", "learning_rate": 0.1, "warmup": 0, "epsilon": 1e-8}
STEADY = Training(minibatch=20, weight_decay=0, **STEADY)


def fit_steady(checkpoint=None):
    model, given = Steady(), {} if checkpoint is None else {"checkpoint": checkpoint}
    return model, fit(model, CELLS, np.arange(40), np.arange(40, 50), STEADY, 0, **given)


@pytest.mark.parametrize(("between", "back"), [(200, 0), (4, 28), (12, 24)])
def test_a_loss_that_is_not_finite_goes_back_and_on_with_a_third_of_the_learning_rate(
    monkeypatch, capsys, between, back
):
    monkeypatch.setattr(run_module, "STEPS_BETWEEN", between)
    model, curve = fit_steady()
    rates = [row["learning_rate"] for row in curve]
    assert rates == pytest.approx([0.1] * (back // 2) + [0.1 / 3] * (30 - back // 2))
    assert [row["epoch"] for row in curve] == list(range(1, 31))
    # Adam moves by the learning rate while the slope stays the same.
    assert model.value.item() == pytest.approx(-0.1 * back - 0.1 / 3 * (60 - back), rel=1e-4)
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("WARNING"))
    assert "the loss (total nan, reconstruction nan) is not finite at epoch 16, step 32" in line
    assert line.endswith(
        f"back to epoch {back // 2 + 1}, step {back + 1} of 60, with a third of the learning rate"
    )


@pytest.mark.parametrize("dies", [5, 29, 31, 40, 60])
def test_going_back_survives_a_kill(monkeypatch, tmp_path, dies):
    monkeypatch.setattr(run_module, "STEPS_BETWEEN", 10)
    model, curve = fit_steady()
    with pytest.raises(Killed):
        fit_steady(Mortal(tmp_path / "c", {dies - 1}, dies))
    again, resumed = fit_steady(Mortal(tmp_path / "c"))
    assert torch.equal(model.value, again.value)
    assert resumed == curve


def test_a_state_is_a_copy_and_can_be_put_back_twice():
    model = nn.Linear(3, 1)
    training = start(model, CELLS, np.arange(40), np.arange(40, 50), Training(minibatch=20), 0)

    def step():
        training.optimiser.zero_grad()
        model(torch.randn(5, 3)).sum().backward()
        training.optimiser.step()
        return model.weight.detach().clone()

    step()
    state = training.state()
    after = step()
    for _ in range(2):
        training.restore(state)
        assert torch.equal(step(), after)


def test_the_second_loss_that_is_not_finite_is_the_end(capsys):
    class Worse(Steady):
        def loss(self, minibatch, kl_weight, done=1.0):
            loss = super().loss(minibatch, kl_weight, done)
            breaks = self.training and done > 0.4
            return loss._replace(total=loss.total * float("nan")) if breaks else loss

    with pytest.raises(Diverged, match=r"epoch 13, step 26 of 60"):
        fit(Worse(), CELLS, np.arange(40), np.arange(40, 50), STEADY, 0)
    assert capsys.readouterr().out.count("with a third of the learning rate") == 1


def waited(losses, smoothing: float) -> list[int]:
    """Return how long there was nothing better after each loss."""
    best, found = Best("last", smoothing), []
    for epoch, loss in enumerate(losses, start=1):
        best.consider(epoch, loss, None, settled=True)
        found.append(best.waited)
    return found


def test_without_smoothing_every_epoch_counts_that_is_not_better():
    assert waited([5, 4, 4, 3, 3.5, 3.2, 2], 0) == [0, 0, 1, 0, 1, 2, 0]


@pytest.mark.parametrize("trend", [-1.0, 0.0])
def test_a_lucky_epoch_ends_a_smoothed_patience_only_where_nothing_gets_better(trend):
    rng = np.random.default_rng(0)
    losses = 100 + trend * np.arange(40) + rng.normal(0, 2, 40)
    losses[10] -= 8
    assert max(waited(losses, 0)) >= 7
    assert (max(waited(losses, 0.5)) >= 5) == (trend == 0)


def test_the_warm_up_is_no_part_of_the_smoothed_loss():
    best = Best("last", 0.5)
    best.consider(1, 1.0, None, settled=False)
    for epoch, loss in ((2, 9.0), (3, 8.0), (4, 8.4)):
        best.consider(epoch, loss, None, settled=True)
    assert best.waited == 0
    assert best.lowest_smooth == pytest.approx(8.45)
    best.consider(5, 8.6, None, settled=True)
    assert best.waited == 1
