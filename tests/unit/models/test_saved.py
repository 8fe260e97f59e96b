from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from sclatent.errors import InputError
from sclatent.models import saved
from sclatent.models.dca import Dca, build_dca
from sclatent.models.heads import OUTPUTS
from sclatent.models.scanvi import Scanvi, build_scanvi
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training import checkpoint
from sclatent.training.loader import Covariates

KEPT = sorted(Path(__file__).parents[2].glob("data/formats/model_*/*"))
ROWS = np.arange(120)
GENES = [f"gene{number}" for number in range(40)]
SMALL = {"n_latent": 4, "n_hidden": 16, "n_components": 3}
SCVIS = [
    {},
    {"likelihood": "zinb", "dispersion": "gene-batch", "library": "latent"},
    {"dispersion": "gene-label", "prior": "mixture", "adversary": 1.0},
    {"dispersion": "gene-cell", "prior": "vamp", "encode_covariates": True},
    {"decoder": "linear", "likelihood": "zinb"},
    {"likelihood": "poisson", "n_layers": 2},
]
PLAIN = {"batch_norm": False, "dropout": 0.1, "start": "random"}


def build(cells, kind, options):
    if kind == "dca":
        return build_dca(cells, ROWS, Dca(n_latent=4, n_hidden=16, **options), seed=0)
    scvi = build_scvi(cells, ROWS, Scvi(**SMALL, **options), seed=0)
    return scvi if kind == "scvi" else build_scanvi(scvi, cells, Scanvi(elbo="paper"), seed=0)


@pytest.mark.parametrize("kind", ["scvi", "scanvi"])
@pytest.mark.parametrize("options", SCVIS, ids=str)
def test_a_saved_model_comes_back_with_its_options(cells, tmp_path, kind, options):
    covariates = Covariates(
        {"sex": ["f", "m"]},
        ["age"],
        np.eye(2, dtype=np.float32)[ROWS % 2],
        ROWS[:, None].astype(np.float32),
    )
    cells = replace(cells, covariates=covariates)
    model = build(cells, kind, options).eval()
    saved.save(tmp_path / "m", model, GENES, cells)
    again = saved.load(tmp_path / "m", GENES, cells)
    minibatch = cells.take(ROWS[:10])
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(model.latent(minibatch), again.latent(minibatch))
    torch.manual_seed(0)
    first = model.loss(minibatch, 1.0).total
    torch.manual_seed(0)
    assert torch.equal(first, again.loss(minibatch, 1.0).total)


@pytest.mark.parametrize("options", [*({"likelihood": name} for name in OUTPUTS), PLAIN], ids=str)
def test_a_saved_dca_comes_back(cells, tmp_path, options):
    model = build(cells, "dca", options).eval()
    saved.save(tmp_path / "m", model, GENES, cells)
    again = saved.load(tmp_path / "m", GENES, cells)
    minibatch = cells.take(ROWS[:10])
    assert again.settings == model.settings
    drawn = [next(one.draws(minibatch, 1)).counts for one in (model, again)]
    pairs = zip(*drawn, strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_it_comes_back_only_for_its_own_genes_batches_and_covariates(cells, tmp_path):
    saved.save(tmp_path / "m", build(cells, "scvi", {}), GENES, cells)
    with pytest.raises(InputError, match="genes are not those of the data"):
        saved.load(tmp_path / "m", GENES[::-1], cells)
    with pytest.raises(InputError, match="batches are not those of the data"):
        saved.load(tmp_path / "m", GENES, replace(cells, batches=["b", "a"]))
    other = Covariates({}, ["age"], np.zeros((120, 0)), np.zeros((120, 1)))
    with pytest.raises(InputError, match="covariates are not those of the data"):
        saved.load(tmp_path / "m", GENES, replace(cells, covariates=other))


def test_labels_that_shape_the_model_must_be_the_same(cells, tmp_path):
    saved.save(tmp_path / "m", build(cells, "scvi", {"dispersion": "gene-label"}), GENES, cells)
    with pytest.raises(InputError, match="classes are not those of the data"):
        saved.load(tmp_path / "m", GENES, replace(cells, classes=["second", "first"]))


@pytest.mark.parametrize(("kind", "options"), [("dca", {}), ("scanvi", {}), ("scvi", SCVIS[2])])
def test_a_model_is_loaded_together_with_the_cells_as_it_saw_them(cells, tmp_path, kind, options):
    model = build(cells, kind, options).eval()
    classes = [] if kind == "dca" else cells.classes
    saved.save(tmp_path / "m", model, GENES, replace(cells, classes=classes))
    seen = cells.label >= 0
    obs = pd.DataFrame(index=[f"cell{number}" for number in ROWS])
    obs["batch"] = pd.Categorical(np.array(cells.batches)[cells.batch])
    obs["cell_type"] = pd.Categorical(np.where(seen, np.array(cells.classes)[cells.label], "rare"))
    obs["labels_split"] = np.where(ROWS == 1, "test", "train")
    adata = anndata.AnnData(cells.counts.to_csr(), obs=obs, var=pd.DataFrame(index=GENES))
    again, found = saved.load_for(tmp_path / "m", adata)
    minibatch = cells.take(ROWS[:10])
    assert torch.equal(model.latent(minibatch), again.latent(minibatch))
    expected = np.where(ROWS == 1, -1, cells.label) if classes else np.full(120, -1)
    assert found.label.tolist() == expected.tolist()
    assert found.classes == classes


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: "/".join(folder.parts[-2:]))
def test_a_model_in_the_format_of_any_release_is_read(cells, folder):
    model = saved.load(folder, GENES, cells)
    expected = np.load(folder / "latent.npy", allow_pickle=False)
    np.testing.assert_allclose(model.latent(cells.take(ROWS[:3])).detach(), expected, atol=1e-4)


def test_a_model_of_every_kind_is_kept_in_the_present_format():
    present = {folder.name for folder in KEPT if folder.parent.name == f"model_{checkpoint.FORMAT}"}
    assert present == {"scvi", "scanvi", "dca"}
