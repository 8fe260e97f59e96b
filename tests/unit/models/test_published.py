import os
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from sclatent.errors import InputError
from sclatent.models.exports import write_export
from sclatent.models.published import read_published
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes

GENES = [f"gene{number}" for number in range(12)]


def write(folder, classes=(), **settings):
    """Write a model as this project does, with a covariate and two batches."""
    sizes = Sizes(12, 2, len(classes), 0, 1)
    model = SCVI(sizes, Scvi(n_latent=3, n_hidden=8, **settings))
    if classes and not model.settings.needs_labels:
        model = SCANVI(model, len(classes), Scanvi())
    covariates = {"categorical": {}, "continuous": ["age"]}
    names = {"genes": GENES, "batches": ["a", "b"], "covariates": covariates}
    write_export(folder / "model.pt", model, {**names, "classes": list(classes)})
    return model


def change(folder, function):
    """Change what the file of a folder holds, as somebody else could."""
    content = torch.load(folder / "model.pt", weights_only=False)
    function(content)
    torch.save(content, folder / "model.pt")


def options(content) -> dict:
    return content["attr_dict"]["init_params_"]["non_kwargs"]


def refusal(folder) -> str:
    with pytest.raises(InputError) as refused:
        read_published(folder)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_model_is_read_with_all_its_names(tmp_path):
    model = write(tmp_path, likelihood="zinb", n_layers=2, library="latent", dropout=0.2)
    found = read_published(tmp_path)
    assert (found.genes, found.batches, found.continuous) == (GENES, ["a", "b"], ["age"])
    assert (found.categorical, found.classes) == ({}, [])
    assert found.model.settings == model.settings


def test_the_classes_of_scanvi_are_read_in_their_order(tmp_path):
    write(tmp_path, ["T", "B"])
    found = read_published(tmp_path)
    assert isinstance(found.model, SCANVI)
    assert found.classes == ["T", "B"]


def test_a_hidden_label_stands_last_wherever_it_stood(tmp_path):
    model = write(tmp_path, ["B", "Z"], dispersion="gene-label")

    def sort(content):
        fields = content["attr_dict"]["registry_"]["field_registries"]
        names = np.array(["B", "Unknown", "Z"], dtype=object)
        fields["labels"]["state_registry"]["categorical_mapping"] = names
        weights = content["model_state_dict"]
        weights["px_r"] = weights["px_r"][:, [0, 2, 1]]

    change(tmp_path, sort)
    found = read_published(tmp_path)
    assert found.classes == ["B", "Z"]
    assert torch.allclose(found.model.dispersion.log_theta, model.dispersion.log_theta)


def test_the_history_of_a_training_and_numbers_of_numpy_do_not_matter(tmp_path):
    write(tmp_path)

    def add(content):
        table = pd.DataFrame({"loss": [1.0, 2.0]}, index=pd.Index([0, 1], name="epoch"))
        content["attr_dict"]["history_"] = {"loss": table}
        content["attr_dict"]["train_indices_"] = np.arange(5)
        content["attr_dict"]["registry_"]["more"] = defaultdict(dict, a=slice(0, 2))
        content["model_state_dict"]["pyro_param_store"] = {"params": {}, "constraints": {}}
        options(content)["n_latent"] = np.int64(3)

    change(tmp_path, add)
    assert read_published(tmp_path).model.settings.n_latent == 3


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("whole", [False, True])
def test_a_program_in_the_file_is_named_and_not_run(tmp_path, whole):
    write(tmp_path)
    hostile = Hostile(tmp_path / "ran")
    if whole:
        torch.save(hostile, tmp_path / "model.pt")
    else:
        change(tmp_path, lambda content: content["attr_dict"].update(more=hostile))
    assert "it would run or build posix.system, which is no data" in refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_classes_of_others_are_named_and_not_built(tmp_path):
    write(tmp_path)
    change(tmp_path, lambda content: content["attr_dict"].update(more=Sizes(3)))
    assert "sclatent.training.loader.Sizes" in refusal(tmp_path)


def test_what_looks_like_pandas_is_not_called(tmp_path):
    write(tmp_path)

    class Reads:
        def __reduce__(self):
            return pd.read_pickle, (str(tmp_path / "other"),)

    change(tmp_path, lambda content: content["attr_dict"].update(more=Reads()))
    assert read_published(tmp_path).genes == GENES


def test_a_missing_a_broken_and_a_cut_file_are_told_apart(tmp_path):
    assert "there is no such file" in refusal(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"no zip")
    assert "not a file that torch.save wrote" in refusal(tmp_path)
    write(tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    assert "not a file that torch.save wrote" in refusal(tmp_path)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pt")
    assert "no model as scvi-tools saves it" in refusal(tmp_path)


def rename(content):
    content["attr_dict"]["registry_"]["model_name"] = "TOTALVI"


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (rename, "a model of class TOTALVI"),
        (lambda content: content["attr_dict"].update(is_trained_=False), "was never trained"),
        (lambda content: options(content).update(gene_likelihood="normal"), "likelihood is normal"),
        (
            lambda content: options(content).update(use_layer_norm="both"),
            "use_layer_norm is 'both'",
        ),
        (lambda content: options(content).update(n_centroids=3), "n_centroids is 3"),
        (lambda content: options(content).update(n_hidden=16), "where the options need"),
        (lambda content: content.update(var_names=np.array(GENES[:5])), "12 genes, it names 5"),
        (lambda content: content.update(var_names=np.array(["a"] * 12)), "names a gene twice"),
    ],
)
def test_a_model_that_is_none_of_ours_is_refused_in_one_line(tmp_path, function, what):
    write(tmp_path)
    change(tmp_path, function)
    assert what in refusal(tmp_path)


def test_size_factors_and_parameters_of_pyro_are_refused(tmp_path):
    write(tmp_path)
    change(
        tmp_path,
        lambda content: content["attr_dict"]["registry_"]["setup_args"].update(size_factor_key="s"),
    )
    assert "size factors from 's'" in refusal(tmp_path)
    write(tmp_path)
    store = {"params": {"a": torch.zeros(1)}, "constraints": {}}
    change(tmp_path, lambda content: content["model_state_dict"].update(pyro_param_store=store))
    assert "parameters of pyro" in refusal(tmp_path)
