import numpy as np
import pytest
import torch

from sclatent.errors import InputError
from sclatent.models.dca import DCA, Dca
from sclatent.models.exchange import from_scvi_tools, to_scvi_tools
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes

SIZES = Sizes(genes=12, batches=3, labels=2, categorical=4, continuous=2)
SMALL = {"n_latent": 3, "n_hidden": 8}


def refusal(function, *arguments) -> str:
    with pytest.raises(InputError) as refused:
        function(*arguments)
    assert len(refused.value.problems) == 1
    return str(refused.value)


def test_a_model_survives_the_way_there_and_back():
    model = SCVI(SIZES, Scvi(**SMALL, likelihood="zinb", library="latent", n_layers=2))
    there = to_scvi_tools(model)
    back = to_scvi_tools(from_scvi_tools(there, model.settings, SIZES))
    assert there.keys() == back.keys()
    used = {name for name in there if "px_r_decoder" not in name}
    assert all(torch.equal(there[name], back[name]) for name in used)


def test_covariates_are_read_as_they_are_after_the_standardisation_is_folded_in():
    model = SCVI(SIZES, Scvi(**SMALL, encode_covariates=True)).eval()
    model.number_mean.copy_(torch.tensor([40.0, -3.0]))
    model.number_sd.copy_(torch.tensor([9.0, 0.1]))
    there = to_scvi_tools(model)
    logs, numbers = torch.rand(5, 12), torch.tensor([40.0, -3.0]) + torch.rand(5, 2)
    columns = torch.eye(7)[:5]
    weight = there["z_encoder.encoder.fc_layers.Layer 0.0.weight"]
    found = torch.cat([logs, numbers, columns], 1) @ weight.T
    found = found + there["z_encoder.encoder.fc_layers.Layer 0.0.bias"]
    standard = (numbers - model.number_mean) / model.number_sd
    wanted = model.encoder.layers.linear[0](torch.cat([logs, standard, columns], 1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_writing_a_model_leaves_it_and_the_random_numbers_alone():
    model = SCVI(SIZES, Scvi(**SMALL))
    model.number_sd.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    there = to_scvi_tools(model)
    assert torch.equal(torch.rand(3), wanted)
    there["z_encoder.mean_encoder.bias"].add_(1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_theta_is_written_within_the_bounds_that_it_has_here():
    model = SCVI(SIZES, Scvi(**SMALL, dispersion="gene-batch"))
    model.dispersion.log_theta.data.fill_(99.0)
    px_r = to_scvi_tools(model)["px_r"]
    assert px_r.shape == (12, 3)
    assert np.allclose(px_r, 13.8)


def test_a_hidden_label_has_the_last_theta_or_the_mean_one():
    model = SCVI(SIZES, Scvi(**SMALL, dispersion="gene-label"))
    there = to_scvi_tools(model)
    back = from_scvi_tools(there, model.settings, SIZES)
    assert torch.equal(back.dispersion.log_theta, model.dispersion.log_theta)
    there["px_r"] = there["px_r"][:, :2]
    back = from_scvi_tools(there, model.settings, SIZES)
    assert torch.allclose(back.dispersion.log_theta[2], there["px_r"].mean(1))


def test_the_adversary_and_a_mixture_prior_are_left_out():
    model = SCVI(SIZES, Scvi(**SMALL, adversary=1.0, prior="mixture", n_components=3))
    plain = SCVI(SIZES, Scvi(**SMALL))
    assert to_scvi_tools(model).keys() == to_scvi_tools(plain).keys()


@pytest.mark.parametrize(
    ("settings", "sizes", "what"),
    [
        ({"decoder": "linear"}, SIZES, "knows no covariates"),
        ({"decoder": "linear", "encode_covariates": True}, Sizes(12, 3), "in its decoder only"),
        ({"decoder": "linear", "dispersion": "gene-cell"}, Sizes(12), "no dispersion gene-cell"),
    ],
)
def test_what_scvi_tools_has_no_model_for_is_refused(settings, sizes, what):
    assert what in refusal(to_scvi_tools, SCVI(sizes, Scvi(**SMALL, **settings)))


def test_dca_and_some_scanvi_are_refused():
    assert "no DCA" in refusal(to_scvi_tools, DCA(12, Dca()))
    for settings, what in (
        ({"decoder": "linear"}, "scANVI of scvi-tools has no linear decoder"),
        ({"dispersion": "gene-label"}, "scANVI of scvi-tools has no theta per gene and label"),
    ):
        scvi = SCVI(Sizes(12, 2, 2), Scvi(**SMALL, **settings))
        assert what in refusal(to_scvi_tools, SCANVI(scvi, 2, Scanvi()))


def spoil(there: dict, name: str, tensor) -> dict:
    return {**there, name: tensor}


@pytest.mark.parametrize(
    ("name", "tensor", "what"),
    [
        ("px_r", torch.zeros(11), r"px_r has shape (11,), where the options need (12,)"),
        ("px_r", torch.full((12,), np.nan), "px_r has values that are not finite"),
        ("more", torch.zeros(1), "have an unknown more"),
    ],
)
def test_weights_that_do_not_fit_are_named(name, tensor, what):
    settings = Scvi(**SMALL)
    there = to_scvi_tools(SCVI(SIZES, settings))
    assert what in refusal(from_scvi_tools, spoil(there, name, tensor), settings, SIZES)


def test_missing_weights_are_named():
    settings = Scvi(**SMALL)
    there = to_scvi_tools(SCVI(SIZES, settings))
    del there["px_r"]
    assert "the weights lack px_r" in refusal(from_scvi_tools, there, settings, SIZES)


def test_an_uneven_prior_of_types_is_refused():
    model = SCANVI(SCVI(SIZES, Scvi(**SMALL)), 2, Scanvi())
    there = spoil(to_scvi_tools(model), "y_prior", torch.tensor([[0.9, 0.1]]))
    assert "not uniform" in refusal(from_scvi_tools, there, model.scvi.settings, SIZES)
