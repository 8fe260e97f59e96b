import random
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from sclatent import files
from sclatent.errors import InputError
from sclatent.training.checkpoint import (
    Checkpoint,
    checkpoint_of,
    load_model,
    read_tree,
    save_model,
    write_tree,
)


def test_weights_and_description_come_back(tmp_path):
    model = nn.Linear(3, 2)
    save_model(tmp_path / "m", model, {"kind": "line", "genes": ["ä", "b"]})
    weights, description = load_model(tmp_path / "m")
    assert torch.equal(weights["weight"], model.weight)
    assert description["genes"] == ["ä", "b"]


def test_who_may_read_the_description_may_read_the_weights(tmp_path):
    save_model(tmp_path, nn.Linear(3, 2), {})
    description, weights = (tmp_path / f"model.{kind}" for kind in ("json", "safetensors"))
    assert weights.stat().st_mode == description.stat().st_mode


def test_equal_models_are_equal_bytes(tmp_path):
    model = nn.Linear(3, 2)
    for name in "ab":
        save_model(tmp_path / name, model, {"kind": "line"})
    names = ("model.json", "model.safetensors")
    assert all(files.sha256(tmp_path / "a" / n) == files.sha256(tmp_path / "b" / n) for n in names)


def test_a_flipped_byte_is_noticed(tmp_path):
    save_model(tmp_path, nn.Linear(3, 2), {})
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="SHA-256 differs"):
        load_model(tmp_path)


def test_a_newer_format_names_both_versions(tmp_path):
    save_model(tmp_path, nn.Linear(3, 2), {})
    description = files.read_json(tmp_path / "model.json")
    files.write_json(tmp_path / "model.json", {**description, "format": 99})
    with pytest.raises(InputError, match="format 99, this release reads 2"):
        load_model(tmp_path)


class Counter:
    """Stands in for a training: it counts, and has a tensor that says the same."""

    def __init__(self, step=0):
        self.schedule, self.good, self.value = SimpleNamespace(place=f"step {step}"), None, step

    def state(self):
        return {"value": self.value, "tensors": {0: torch.full((3,), float(self.value))}}

    def restore(self, state):
        assert state["tensors"][0].tolist() == [state["value"]] * 3
        self.value = state["value"]


def resumed(checkpoint: Checkpoint) -> int:
    counter = Counter()
    checkpoint.resume(counter)
    return counter.value


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint that was written at 1 and at 2."""
    checkpoint = Checkpoint(tmp_path / "c", lambda: "same")
    checkpoint.write(Counter(1))
    checkpoint.write(Counter(2))
    return checkpoint


def flip(path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_tree_of_tensors_and_values_comes_back(tmp_path):
    shared = torch.randn(2, 0, 3)
    tree = {
        "weights": {"a.b": torch.randn(4, 2), "c": shared},
        "state": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "random": torch.get_rng_state(),
        "values": [2**127 + 1, 1 / 3, float("inf"), None, "tensor", True, (1, [])],
        "again": [torch.arange(3), shared],
    }
    write_tree(tmp_path / "t", tree)
    found = read_tree(tmp_path / "t")
    assert found["values"] == [2**127 + 1, 1 / 3, float("inf"), None, "tensor", True, [1, []]]
    assert list(found["state"]) == [0, 1]
    assert found["weights"]["c"] is found["again"][1]
    for one, other in zip(leaves(tree), leaves(found), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def leaves(tree) -> list:
    if isinstance(tree, torch.Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [leaf for part in parts for leaf in leaves(part)]


def test_the_last_checkpoint_is_gone_on_from_and_its_cost_counts(checkpoint, tmp_path, capsys):
    later = Checkpoint(tmp_path / "c", lambda: "same")
    assert resumed(later) == 2
    assert later.earlier["cpu_seconds"] > 0
    assert "going on from" in capsys.readouterr().out
    later.write(Counter(3))
    last = Checkpoint(tmp_path / "c", lambda: "same")
    assert resumed(last) == 3
    assert last.earlier["cpu_seconds"] > later.earlier["cpu_seconds"]


def test_a_checkpoint_is_safetensors_with_json(checkpoint):
    with safe_open(checkpoint.path, framework="pt") as file:
        assert set(file.metadata()) == {"tree", "sha256"}


def test_a_flipped_byte_anywhere_breaks_the_file_and_the_one_before_is_used(checkpoint, capsys):
    size = checkpoint.path.stat().st_size
    whole = checkpoint.path.read_bytes()
    for place in [0, 9, 40, size - 1, *random.Random(0).sample(range(size), 100)]:
        flip(checkpoint.path, place)
        assert resumed(checkpoint) == 1, place
        assert f"WARNING {checkpoint.path} is broken and is not used" in capsys.readouterr().out
        checkpoint.path.write_bytes(whole)
    assert resumed(checkpoint) == 2


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_where_all_files_are_broken_training_begins_anew(checkpoint, length, capsys):
    for path in (checkpoint.path, checkpoint.before):
        path.write_bytes(path.read_bytes()[:length])
    assert resumed(checkpoint) == 0
    assert capsys.readouterr().out.count("is broken and is not used") == 2


def test_a_checkpoint_of_other_settings_is_not_used(checkpoint, tmp_path, capsys):
    assert resumed(Checkpoint(tmp_path / "c", lambda: "other")) == 0
    assert "is of other settings, data or code and is not used" in capsys.readouterr().out


def test_removing_leaves_nothing_of_this_seed_and_everything_of_others(checkpoint, tmp_path):
    (tmp_path / ".7.partial.c").touch()
    (tmp_path / "other").touch()
    checkpoint.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_it_is_written_when_the_minutes_are_over_and_a_full_disk_does_not_end_training(
    tmp_path, monkeypatch, capsys
):
    checkpoint = Checkpoint(tmp_path / "c", lambda: "same", minutes=60)
    checkpoint.consider(Counter(1))
    assert not checkpoint.path.exists()
    checkpoint.written -= 3601
    checkpoint.consider(Counter(1))
    assert checkpoint.path.exists()
    checkpoint.consider(Counter(2))
    assert resumed(checkpoint) == 1

    def full(path):
        raise OSError("No space left on device")

    monkeypatch.setattr(files, "safely", full)
    checkpoint.written -= 3601
    checkpoint.consider(Counter(3))
    assert "training goes on (No space left on device)" in capsys.readouterr().out
    assert resumed(checkpoint) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_acted_on_between_two_steps_and_handlers_are_put_back(tmp_path, number, capsys):
    checkpoint, former = Checkpoint(tmp_path / "c", lambda: "same"), signal.getsignal(number)
    with checkpoint.watching():
        signal.raise_signal(number)
        with pytest.raises(SystemExit) as end:
            checkpoint.consider(Counter(7))
    assert end.value.code == 75
    assert signal.getsignal(number) == former
    assert resumed(Checkpoint(tmp_path / "c", lambda: "same")) == 7
    name = signal.Signals(number).name
    assert f"{name}: stopped before step 7; the same command goes on" in capsys.readouterr().out


class Params(dict):
    checkpoint = "c"


def job_with(folder, minutes=5, seed="0", **params) -> SimpleNamespace:
    inputs = [str(folder / "cells"), str(folder / "model")]
    config = {"training": {"checkpoint_minutes": minutes}}
    params = Params({"model": {"n_latent": 3}, **params})
    return SimpleNamespace(input=inputs, params=params, wildcards=["toy", seed], config=config)


def test_the_identity_is_that_of_inputs_and_parameters_and_not_of_the_minutes(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("cells", "model/weights"):
        (tmp_path / name).write_text("a")

    def identity(**changed):
        return checkpoint_of(job_with(tmp_path, **changed)).make_identity()

    first = identity()
    assert first == identity(minutes=1)
    others = [identity(seed="1"), identity(model={"n_latent": 4}), identity(code="other")]
    (tmp_path / "model/weights").write_text("b")
    others.append(identity())
    (tmp_path / "cells").write_text("b")
    others.append(identity())
    assert len({first, *others}) == 6
