import pytest
import torch

from sclatent.models.exports import write_export
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes

NAMES = {
    "genes": [f"gene{number}" for number in range(12)],
    "batches": ["a", "b"],
    "covariates": {"categorical": {"sex": ["f", "m"]}, "continuous": ["age"]},
    "classes": [],
}


def make(**settings) -> SCVI:
    torch.manual_seed(0)
    return SCVI(Sizes(12, 2, 0, 2, 1), Scvi(n_latent=3, n_hidden=8, **settings))


def test_equal_models_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_export(tmp_path / name / "model.pt", make(), NAMES)
    assert (tmp_path / "one/model.pt").read_bytes() == (tmp_path / "two/model.pt").read_bytes()


def test_the_file_says_how_an_anndata_is_set_up(tmp_path):
    write_export(tmp_path / "model.pt", make(), NAMES)
    content = torch.load(tmp_path / "model.pt", weights_only=False)
    registry = content["attr_dict"]["registry_"]
    assert registry["model_name"] == "SCVI"
    assert registry["setup_args"] == {
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": None,
        "size_factor_key": None,
        "categorical_covariate_keys": ["sex"],
        "continuous_covariate_keys": ["age"],
    }
    assert list(content["var_names"]) == NAMES["genes"]


def test_scanvi_names_its_classes_and_the_unlabelled_one(tmp_path):
    model = SCANVI(make(), 2, Scanvi())
    write_export(tmp_path / "model.pt", model, {**NAMES, "classes": ["T", "B"]})
    content = torch.load(tmp_path / "model.pt", weights_only=False)
    state = content["attr_dict"]["registry_"]["field_registries"]["labels"]["state_registry"]
    assert list(state["categorical_mapping"]) == ["T", "B", "Unknown"]
    assert state["unlabeled_category"] == "Unknown"


@pytest.mark.parametrize(("name", "value"), [("prior", "vamp"), ("adversary", 1.0)])
def test_what_is_left_out_is_said(tmp_path, capsys, name, value):
    write_export(tmp_path / "model.pt", make(**{name: value}), NAMES)
    assert f"NOTE the {name} had a part in training only" in capsys.readouterr().out
