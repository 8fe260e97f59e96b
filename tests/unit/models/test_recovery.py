"""Models trained on simulated counts find again what was planted.

Cells are simulated with as many of each type in one batch as in the other, so that nothing but a
batch effect tells the batch: chance is one half.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sclatent.data.simulate import Simulation, simulate
from sclatent.models.likelihoods import dispersion_from_moments
from sclatent.models.scvi import Scvi, build_scvi
from sclatent.training.loader import Cells, Covariates
from sclatent.training.loop import fit, predict
from sclatent.training.plan import Training

CHANCE, MARGIN = 0.5, 0.15
PLANTED = Simulation(
    n_cells=1600,
    n_genes=120,
    n_batches=2,
    n_types=4,
    private_type=False,
    type_strength=1.5,
    de_share=0.3,
    batch_strength=0.2,
    low_quality=0,
    unlabelled=0,
    library_size=1500,
)
DEEP = replace(PLANTED, n_cells=1000, dispersion=50, library_size=8000)  # few zeros by chance
CORRECTIONS = {
    "conditioning": {},
    "encoded": {"encode_covariates": True},
    "mixture": {"prior": "mixture"},
    "vampprior": {"prior": "vamp"},
    "adversary": {"adversary": 10.0},
}


@cache
def planted(settings: Simulation):
    """Return simulated cells, as many of a type in either batch, with numbers for names."""
    adata = simulate(settings)
    groups = adata.obs.groupby(["true_cell_type", "batch"], observed=True).indices
    fewest = adata.obs.groupby(["true_cell_type", "batch"], observed=True).size()
    fewest = fewest.unstack().min(axis=1)
    random = np.random.default_rng(0)
    rows = [random.permutation(rows)[: fewest[kind]] for (kind, _), rows in groups.items()]
    return adata[np.sort(np.concatenate(rows))].copy()


def codes(adata, column: str) -> np.ndarray:
    return adata.obs[column].cat.codes.to_numpy().astype(int)


@cache
def trained(settings: Simulation, seen: tuple = ("batch",), steps: int = 600, **options):
    """Return a model trained on the planted cells, which sees the columns `seen`, and the cells."""
    adata = planted(settings)
    n_cells = adata.n_obs
    covariates = None
    if "protocol" in seen:
        one_hot = np.eye(2, dtype=np.float32)[codes(adata, "protocol")]
        nothing = np.zeros((n_cells, 0), np.float32)
        covariates = Covariates({"protocol": ["1", "2"]}, [], one_hot, nothing)
    batch, names = (codes(adata, "batch"), ["a", "b"]) if "batch" in seen else (0, ["a"])
    batch = np.broadcast_to(batch, n_cells).copy()
    cells = Cells(adata.X, batch, np.full(n_cells, -1), names, covariates=covariates)
    rows = np.random.default_rng(1).permutation(n_cells)
    train, validation = np.sort(rows[n_cells // 10 :]), np.sort(rows[: n_cells // 10])
    scvi = Scvi(**{"n_latent": 5, "n_hidden": 32, "dropout": 0.0, "n_components": 8, **options})
    model = build_scvi(cells, train, scvi, seed=0)
    plan = Training(minibatch=128, n_steps=steps, max_epochs=100, learning_rate=0.01, patience=1000)
    fit(model, cells, train, validation, plan, seed=0)
    return model, cells


def accuracy(model, cells: Cells, truth: np.ndarray) -> float:
    """Return the better cross-validated accuracy of a linear and a neighbour classifier on z."""
    latent = predict(model.latent, cells)
    classifiers = LogisticRegression(max_iter=500), KNeighborsClassifier(15)
    pipelines = [make_pipeline(StandardScaler(), classifier) for classifier in classifiers]
    return max(cross_val_score(pipeline, latent, truth).mean() for pipeline in pipelines)


def decoded(model, minibatch):
    return model.decode(minibatch, model.latent(minibatch), minibatch.library_size.log())


@pytest.mark.parametrize("name", CORRECTIONS)
def test_the_latent_separates_the_planted_types(name):
    kind = codes(planted(PLANTED), "true_cell_type")
    found = accuracy(*trained(PLANTED, **CORRECTIONS[name]), kind)
    assert found > 0.9
    assert found > np.bincount(kind).max() / len(kind) + 0.3


@pytest.mark.parametrize("name", CORRECTIONS)
def test_the_latent_does_not_tell_the_batch(name):
    batch = codes(planted(PLANTED), "batch")
    assert accuracy(*trained(PLANTED, **CORRECTIONS[name]), batch) < CHANCE + MARGIN


def test_the_latent_tells_the_batch_where_the_decoder_does_not_see_it():
    batch = codes(planted(PLANTED), "batch")
    assert accuracy(*trained(PLANTED, seen=()), batch) > 0.9


def test_the_latent_tells_a_covariate_only_where_the_decoder_does_not_see_it():
    settings = replace(PLANTED, covariate_strength=0.6)
    protocol = codes(planted(settings), "protocol")
    assert accuracy(*trained(settings, seen=("batch", "protocol")), protocol) < CHANCE + MARGIN
    assert accuracy(*trained(settings), protocol) > 0.9


def test_theta_is_found_again():
    model, cells = trained(PLANTED)
    expressed = np.asarray(cells.counts.to_csr().mean(0)).ravel() > 2
    assert expressed.sum() > 60
    truth = np.log(planted(PLANTED).var["true_theta"].to_numpy())[expressed]
    found = model.dispersion.log_theta.detach().numpy()[expressed]
    moments = cells.counts.moments(np.arange(len(cells.library_size)))
    start = dispersion_from_moments(moments, cells.library_size).numpy()[expressed]
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    assert abs(np.mean(found - truth)) < 0.15
    assert np.mean(np.abs(found - truth)) < 0.2
    assert np.mean(np.abs(found - truth)) < np.mean(np.abs(start - truth)) / 2


def test_the_latent_library_size_is_found_again():
    model, cells = trained(PLANTED, library="latent")
    found = predict(lambda minibatch: model.library.encoder(*model.inputs(minibatch))[0], cells)
    observed = np.log(cells.library_size)
    expected = np.log(planted(PLANTED).obs["true_library_size"].to_numpy())
    for truth in (observed, expected):
        assert np.corrcoef(found[:, 0], truth)[0, 1] > 0.9
        assert abs(np.mean(found[:, 0] - truth)) < 0.15


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_planted_dropout_is_found_again_and_none_where_there_is_none(dropout):
    settings = replace(DEEP, dropout=dropout)
    model, cells = trained(settings, steps=300, likelihood="zinb")
    pi = predict(lambda m: torch.sigmoid(decoded(model, m).dropout_logit), cells)
    expressed = np.asarray(cells.counts.to_csr().mean(0)).ravel() > 10
    assert expressed.sum() > 60
    assert pi[:, expressed].mean() == pytest.approx(dropout, abs=0.03)
    assert np.abs(pi[:, expressed].mean(0) - dropout).max() < 0.1
