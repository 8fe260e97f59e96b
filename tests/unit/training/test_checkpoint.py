import pytest
import torch
from torch import nn

from sclatent import files
from sclatent.errors import InputError
from sclatent.training.checkpoint import load_model, save_model


def test_weights_and_description_come_back(tmp_path):
    model = nn.Linear(3, 2)
    save_model(tmp_path / "m", model, {"kind": "line", "genes": ["ä", "b"]})
    weights, description = load_model(tmp_path / "m")
    assert torch.equal(weights["weight"], model.weight)
    assert description["genes"] == ["ä", "b"]


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
