import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from sclatent.errors import InputError
from sclatent.models.imports import adopt, check_genes
from sclatent.models.published import Published
from sclatent.models.scanvi import SCANVI, Scanvi
from sclatent.models.scvi import SCVI, Scvi
from sclatent.training.loader import Sizes, gather_cells
from sclatent.training.loop import predict

GENES = [f"gene{number}" for number in range(20)]


@pytest.fixture
def adata():
    random = np.random.default_rng(0)
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(60)])
    obs["batch"] = pd.Categorical(random.choice(["a", "b", "c"], 60))
    obs["sex"] = pd.Categorical(random.choice(["f", "m"], 60))
    obs["age"] = random.normal(50, 9, 60)
    counts = csr_matrix(random.poisson(2, (60, 20)).astype(np.int32))
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))
    adata.uns["covariates"] = {"categorical": ["sex"], "continuous": ["age"]}
    return adata


def publish(classes=(), batches=("a", "b", "c"), **settings) -> Published:
    torch.manual_seed(0)
    one_batch = len(batches) == 1
    sizes = Sizes(20, len(batches), len(classes), 2, 1)
    model = SCVI(sizes, Scvi(n_latent=3, n_hidden=8, **settings)).eval()
    assert model.sizes.columns == 2 + (0 if one_batch else len(batches))
    model = SCANVI(model, len(classes), Scanvi()) if classes else model
    return Published(model, GENES, list(batches), {"sex": ["f", "m"]}, ["age"], list(classes))


def expressed(model, cells):
    """Return the latent states, and log means of the counts at them."""
    minibatch = cells.take(np.arange(cells.counts.shape[0]))
    with torch.no_grad():
        z = model.latent(minibatch)
        return z.numpy(), model.decode(minibatch, z, minibatch.library_size.log()).log_rate.numpy()


def put(published, adata):
    check_genes(adata.var_names, published, "folder")
    return adopt(published, adata[:, published.genes].copy(), "folder")


def refusal(published, adata) -> str:
    with pytest.raises(InputError) as refused:
        put(published, adata)
    assert len(refused.value.problems) == 1
    return str(refused.value)


OPTIONS = [
    {"encode_covariates": True},
    {"encode_covariates": True, "library": "latent", "n_layers": 3, "likelihood": "zinb"},
    {"dispersion": "gene-batch"},
    {"decoder": "linear", "likelihood": "zinb", "dispersion": "gene-batch"},
]


@pytest.mark.parametrize("settings", OPTIONS)
def test_a_model_says_the_same_on_its_own_data(adata, settings):
    published = publish(**settings)
    wanted = expressed(published.model, gather_cells(adata))
    for found, value in zip(expressed(*put(published, adata)), wanted, strict=True):
        assert np.allclose(found, value, atol=1e-5)


@pytest.mark.parametrize("settings", OPTIONS)
def test_order_and_further_covariates_of_the_data_do_not_matter(adata, settings):
    published = publish(**settings)
    wanted = expressed(published.model, gather_cells(adata))
    other = adata[:, ::-1].copy()
    other.obs["batch"] = other.obs["batch"].cat.reorder_categories(["c", "a", "b"])
    other.obs["site"] = pd.Categorical(np.arange(60) % 3)
    other.obs["site"] = other.obs["site"].cat.rename_categories(["x", "y", "z"])
    other.obs["depth"] = np.arange(60.0)
    other.uns["covariates"] = {"categorical": ["site", "sex"], "continuous": ["depth", "age"]}
    for found, value in zip(expressed(*put(published, other)), wanted, strict=True):
        assert np.allclose(found, value, atol=1e-5)


@pytest.mark.parametrize("settings", OPTIONS)
def test_a_category_that_all_cells_share_becomes_a_constant(adata, settings):
    published = publish(**settings)
    chosen = np.flatnonzero((adata.obs["batch"] == "b") & (adata.obs["sex"] == "m"))
    wanted = [values[chosen] for values in expressed(published.model, gather_cells(adata))]
    model, cells = put(published, adata[chosen].copy())
    assert cells.sizes.columns == 0
    for found, value in zip(expressed(model, cells), wanted, strict=True):
        assert np.allclose(found, value, atol=1e-5)


def test_theta_and_the_prior_of_the_library_go_with_their_batches(adata):
    published = publish(dispersion="gene-batch", library="latent")
    published.model.library.mean.copy_(torch.tensor([1.0, 2.0, 6.0]))
    adata = adata[adata.obs["batch"] != "b"].copy()
    adata.obs["batch"] = adata.obs["batch"].cat.set_categories(["c", "new"])
    adata.obs["batch"] = adata.obs["batch"].fillna("new")
    model, _ = put(published, adata)
    assert np.allclose(model.library.mean, [6.0, 3.0])
    theta = published.model.dispersion.log_theta
    assert torch.allclose(model.dispersion.log_theta, torch.stack([theta[2], theta.mean(0)]))


def test_a_model_without_batches_is_used_on_any_and_says_so(adata, capsys):
    published = publish(batches=["0"], dispersion="gene-batch", encode_covariates=True)
    one = adata.copy()
    one.obs["batch"] = pd.Categorical(["0"] * 60)
    wanted = expressed(published.model, gather_cells(one))
    for found, value in zip(expressed(*put(published, adata)), wanted, strict=True):
        assert np.allclose(found, value, atol=1e-5)
    assert "knows one batch only" in capsys.readouterr().out


def test_what_an_imported_model_may_have_seen_is_said(adata, capsys):
    put(publish(), adata)
    assert "may have learnt from cells and labels that are held out" in capsys.readouterr().out


def test_scanvi_keeps_its_classes(adata):
    published = publish(["T", "B"])
    model, cells = put(published, adata)
    assert cells.classes == ["T", "B"]
    assert predict(model.probabilities, cells).shape == (60, 2)


def test_missing_genes_are_counted_and_never_taken_for_zeros(adata):
    said = refusal(publish(), adata[:, 5:].copy())
    assert "5 of its 20 genes are not in the dataset, such as gene0, gene1, gene2" in said


def test_an_unknown_batch_is_refused_where_the_encoder_sees_it(adata):
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories({"b": "new"})
    said = refusal(publish(encode_covariates=True), adata)
    assert "1 of 3 values of batch are unknown to the model, such as new" in said
    assert "rename them to what the model knows (a, b, c)" in said


def test_an_unknown_batch_is_noted_where_only_the_decoder_sees_it(adata, capsys):
    published = publish()
    wanted = predict(published.model.latent, gather_cells(adata))
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories({"b": "new"})
    model, cells = put(published, adata)
    assert np.allclose(predict(model.latent, cells), wanted, atol=1e-6)
    assert "NOTE 1 of 3 values of batch are unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("covariates", "what"),
    [
        ({"categorical": [], "continuous": ["age"]}, "'sex', which the dataset does not name"),
        ({"categorical": ["sex"], "continuous": []}, "'age', which the dataset does not name"),
    ],
)
def test_a_covariate_that_the_dataset_does_not_name_is_refused(adata, covariates, what):
    adata.uns["covariates"] = covariates
    assert what in refusal(publish(), adata)
