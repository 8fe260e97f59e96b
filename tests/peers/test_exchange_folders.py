"""Folders that scvi-tools saved are brought in, and folders written here are loaded there."""

import os
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy.sparse import csr_matrix

from sclatent.models import saved
from sclatent.models.exports import write_export
from sclatent.models.imports import adopt, check_genes
from sclatent.models.posterior import denoise
from sclatent.models.published import read_published
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import gather_cells, split_rows
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

PLAN = Training(n_steps=6, minibatch=64, max_epochs=2, min_epochs=2, keep="last")
TRAIN = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "batch_size": 64}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def adata():
    """200 cells of three types in three batches, with covariates, as the data stage leaves them."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, 200)
    rate = np.exp(random.normal(0, 1, (3, 50)))[kind]
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(200)])
    obs["batch"] = pd.Categorical(random.choice(["b1", "b2", "b3"], 200))
    obs["cell_type"] = pd.Categorical(np.array(["B", "NK", "T"])[kind])
    obs["sex"] = pd.Categorical(random.choice(["f", "m"], 200))
    obs["age"] = random.normal(50, 9, 200)
    obs["cells_split"] = pd.Categorical(random.choice(["train", "validation", "heldout"], 200))
    obs["labels_split"] = pd.Categorical(random.choice(["train", "test"], 200))
    var = pd.DataFrame(index=[f"gene{number}" for number in range(50)])
    counts = csr_matrix(random.poisson(rate).astype(np.int32))
    adata = anndata.AnnData(counts, obs=obs, var=var, layers={"counts": counts.copy()})
    adata.uns["covariates"] = {"categorical": ["sex"], "continuous": ["age"]}
    return adata


def without_covariates(adata):
    adata.uns["covariates"] = {"categorical": [], "continuous": []}
    return adata


def train_there(adata, kind="SCVI", covariates=True, **options):
    model_class = getattr(scvi.model, kind)
    there = adata.copy()
    there.obs["seen"] = there.obs["cell_type"].astype(str)
    there.obs.loc[there.obs["labels_split"] != "train", "seen"] = "Unknown"
    keys = {"layer": "counts", "batch_key": "batch"}
    if covariates:
        keys |= {"categorical_covariate_keys": ["sex"], "continuous_covariate_keys": ["age"]}
    if kind == "SCANVI":
        keys |= {"labels_key": "seen", "unlabeled_category": "Unknown"}
    model_class.setup_anndata(there, **keys)
    model = model_class(there, n_hidden=16, n_latent=5, **options)
    model.train(**TRAIN)
    return model, there


def bring(folder, adata):
    published = read_published(folder)
    check_genes(adata.var_names, published, str(folder))
    here = adata[:, published.genes].copy()
    return *adopt(published, here, str(folder)), here


def expression(model, cells, **settings):
    rows = np.arange(cells.counts.shape[0])
    return denoise(model, cells, rows, library_size=1, n_samples=0, seed=0, **settings)


@pytest.mark.parametrize("save_anndata", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_layers": 2, "encode_covariates": True, "gene_likelihood": "nb"},
        {"use_observed_lib_size": False, "dispersion": "gene-batch", "encode_covariates": True},
    ],
    ids=["default", "encoded", "latent library"],
)
def test_a_model_trained_there_has_the_same_latent_here(adata, tmp_path, options, save_anndata):
    theirs, there = train_there(adata, **options)
    theirs.save(tmp_path / "model", save_anndata=save_anndata)
    model, cells, _ = bring(tmp_path / "model", adata)
    close(predict(model.latent, cells), theirs.get_latent_representation(there))


def test_genes_batches_and_covariates_are_matched_by_name(adata, tmp_path):
    theirs, there = train_there(adata, encode_covariates=True)
    theirs.save(tmp_path / "model")
    random = np.random.default_rng(1)
    chosen = random.permutation(np.flatnonzero(adata.obs["batch"] != "b2"))
    mixed = adata[chosen, random.permutation(50)].copy()
    mixed.obs["batch"] = pd.Categorical(mixed.obs["batch"], categories=["b3", "b1"])
    mixed.obs["site"] = pd.Categorical(random.choice(["x", "y"], len(chosen)))
    mixed.obs["depth"] = random.normal(size=len(chosen))
    mixed.uns["covariates"] = {"categorical": ["site", "sex"], "continuous": ["depth", "age"]}
    model, cells, here = bring(tmp_path / "model", mixed)
    assert list(here.var_names) == list(adata.var_names)
    assert cells.batches == ["b3", "b1"]
    close(predict(model.latent, cells), theirs.get_latent_representation(there)[chosen])
    loaded = expression(model, cells, batch="own")
    assert np.allclose(loaded, theirs_expressed(theirs, there)[chosen], atol=1e-6)


def theirs_expressed(theirs, there):
    """Return the shares of the genes at the mean latent state; scvi-tools itself draws one."""
    with torch.no_grad():
        found = []
        for tensors in theirs._make_data_loader(adata=there, batch_size=64):
            inferred = theirs.module.inference(**theirs.module._get_inference_input(tensors))
            inferred["z"] = inferred["qz"].loc
            asked = theirs.module._get_generative_input(tensors, inferred)
            found.append(theirs.module.generative(**asked)["px"].scale.numpy())
    return np.concatenate(found)


@pytest.mark.parametrize("encoded", [False, True])
def test_a_dataset_of_one_batch_and_one_category_is_one_of_theirs(adata, tmp_path, encoded):
    theirs, there = train_there(adata, encode_covariates=encoded, dispersion="gene-batch")
    theirs.save(tmp_path / "model")
    chosen = np.flatnonzero((adata.obs["batch"] == "b2") & (adata.obs["sex"] == "m"))
    model, cells, _ = bring(tmp_path / "model", adata[chosen].copy())
    assert cells.sizes.columns == 0
    close(predict(model.latent, cells), theirs.get_latent_representation(there)[chosen])
    found = expression(model, cells, batch="own")
    assert np.allclose(found, theirs_expressed(theirs, there)[chosen], atol=1e-6)


def test_a_linear_model_comes_with_its_decoder(adata, tmp_path):
    theirs, there = train_there(adata, "LinearSCVI", covariates=False, gene_likelihood="zinb")
    theirs.save(tmp_path / "model")
    model, cells, _ = bring(tmp_path / "model", adata[:, ::-1].copy())
    close(predict(model.latent, cells), theirs.get_latent_representation(there))
    chosen = np.flatnonzero(adata.obs["batch"] == "b1")
    model, cells, _ = bring(tmp_path / "model", without_covariates(adata)[chosen].copy())
    # The library size is latent in both; shares of genes do not depend on it.
    found = expression(model, cells, batch="own")
    assert np.allclose(found, theirs_expressed(theirs, there)[chosen], atol=1e-6)


def test_scanvi_comes_with_its_classifier(adata, tmp_path):
    theirs, there = train_there(adata, "SCANVI", n_layers=2)
    theirs.save(tmp_path / "model")
    model, cells, _ = bring(tmp_path / "model", adata)
    assert cells.classes == ["B", "NK", "T"]
    close(predict(model.latent, cells), theirs.get_latent_representation(there))
    probabilities = predict(model.probabilities, cells)
    close(probabilities, theirs.predict(there, soft=True)[cells.classes].to_numpy())


def test_an_imported_model_is_saved_and_loaded_as_every_other(adata, tmp_path):
    theirs, _ = train_there(adata, "SCANVI")
    theirs.save(tmp_path / "model")
    model, cells, here = bring(tmp_path / "model", adata)
    saved.save(tmp_path / "here.model", model, here.var_names, cells)
    again, cells = saved.load_for(tmp_path / "here.model", here)
    assert np.array_equal(predict(again.latent, cells), predict(model.latent, cells))


def test_an_unknown_batch_is_refused_only_where_the_encoder_sees_it(adata, tmp_path, capsys):
    others = adata.copy()
    others.obs["batch"] = others.obs["batch"].cat.rename_categories({"b2": "new"})
    theirs, _ = train_there(adata, encode_covariates=True)
    theirs.save(tmp_path / "encoded")
    with pytest.raises(Exception, match=r"1 of 3 values of batch are unknown .* new,") as refused:
        bring(tmp_path / "encoded", others)
    assert len(str(refused.value).splitlines()) == 1
    theirs, there = train_there(adata)
    theirs.save(tmp_path / "plain")
    model, cells, _ = bring(tmp_path / "plain", others)
    assert "NOTE 1 of 3 values of batch are unknown" in capsys.readouterr().out
    close(predict(model.latent, cells), theirs.get_latent_representation(there))


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_program_hidden_in_a_real_model_is_refused_and_not_run(adata, tmp_path):
    theirs, _ = train_there(adata)
    theirs.save(tmp_path / "model")
    content = torch.load(tmp_path / "model/model.pt", weights_only=False)
    content["attr_dict"]["history_"] = Hostile(tmp_path / "ran")
    torch.save(content, tmp_path / "model/model.pt")
    with pytest.raises(Exception, match=r"posix\.system"):
        read_published(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def train_here(adata, settings: Scvi, with_types=False):
    cells, rows = gather_cells(adata), split_rows(adata)
    if settings.needs_labels or with_types:
        cells = gather_cells(adata, min_cells_per_label=2)
    model = build_scvi(cells, rows.train, settings, 0)
    if with_types:
        model = build_scanvi(model, cells, Scanvi(), 0)
    fit(model, cells, rows.train, rows.validation, PLAN, 0)
    return model, cells


def send(model, cells, adata, folder):
    saved.save(folder / "here", model, adata.var_names, cells)
    write_export(folder / "there/model.pt", *saved.restore(folder / "here"))
    return folder / "there"


SETTINGS = [
    ("SCVI", {}),
    ("SCVI", {"likelihood": "zinb", "n_layers": 2, "encode_covariates": True}),
    ("SCVI", {"library": "latent", "dispersion": "gene-batch", "prior": "vamp"}),
    ("SCVI", {"dispersion": "gene-cell", "adversary": 1.0}),
    ("SCVI", {"dispersion": "gene-label"}),
    ("LinearSCVI", {"decoder": "linear"}),
    ("LinearSCVI", {"decoder": "linear", "likelihood": "zinb", "library": "latent"}),
    ("SCANVI", {"likelihood": "zinb", "n_layers": 2}),
]


@pytest.mark.parametrize(("kind", "options"), SETTINGS)
def test_a_model_trained_here_says_the_same_there(adata, tmp_path, kind, options):
    adata = without_covariates(adata) if kind == "LinearSCVI" else adata
    settings = Scvi(n_latent=5, n_hidden=16, n_components=4, **options)
    model, cells = train_here(adata, settings, kind == "SCANVI")
    folder = send(model, cells, adata, tmp_path)
    if settings.needs_labels:  # theta is that of the label a cell is said to have
        adata.obs["cell_type"] = np.where(cells.label < 0, "Unknown", adata.obs["cell_type"])
    theirs = getattr(scvi.model, kind).load(folder, adata)
    assert theirs.is_trained
    close(theirs.get_latent_representation(), predict(model.latent, cells))
    found = expression(model, cells, batch="own")
    assert np.allclose(found, theirs_expressed(theirs, adata), atol=1e-6)
    drawn = theirs.get_normalized_expression(n_samples=2, return_numpy=True)
    assert np.allclose(drawn.sum(1), 1, atol=1e-4)
    if kind == "SCANVI":
        probabilities = theirs.predict(soft=True)
        assert list(probabilities) == cells.classes
        close(probabilities.to_numpy(), predict(model.probabilities, cells))


def test_what_is_sent_there_can_be_trained_on_and_brought_back(adata, tmp_path):
    model, cells = train_here(adata, Scvi(n_latent=5, n_hidden=16, likelihood="zinb"))
    folder = send(model, cells, adata, tmp_path)
    theirs = scvi.model.SCVI.load(folder, adata)
    back, cells, _ = bring(folder, adata)
    close(predict(back.latent, cells), predict(model.latent, cells))
    theirs.train(**TRAIN)
    theirs.save(tmp_path / "again")
    back, cells, _ = bring(tmp_path / "again", adata)
    close(predict(back.latent, cells), theirs.get_latent_representation())
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("Unknown")
    scanvi = scvi.model.SCANVI.from_scvi_model(theirs, "Unknown", labels_key="cell_type")
    scanvi.module.eval()
    scanvi.is_trained = True
    close(scanvi.get_latent_representation(), theirs.get_latent_representation())


def test_an_export_is_the_same_every_time(adata, tmp_path):
    model, cells = train_here(adata, Scvi(n_latent=5, n_hidden=16))
    first = send(model, cells, adata, tmp_path / "a") / "model.pt"
    second = send(model, cells, adata, tmp_path / "b") / "model.pt"
    assert first.read_bytes() == second.read_bytes()


def close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
