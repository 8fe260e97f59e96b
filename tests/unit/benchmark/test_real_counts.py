"""Scores of PCA and of the controls on real counts: what is known of them beforehand."""

import anndata
import numpy as np
import pytest

from sclatent.baselines.pca import log_normalise
from sclatent.benchmark.controls import score_controls
from sclatent.benchmark.reference import principal_components
from sclatent.benchmark.score import BenchmarkSettings, prepare, score_latent


@pytest.fixture(scope="module")
def kang(shared_data):
    cells = anndata.read_h5ad(shared_data / "kang_ifnb_2800.h5ad")
    cells.obs["total_counts"] = np.asarray(cells.X.sum(axis=1)).ravel()
    draw = np.random.default_rng(0).random(cells.n_obs) < 0.3
    cells.obs["labels_split"] = np.where(draw, "test", "train")
    values = log_normalise(cells.X.tocsr(), cells.obs["total_counts"].to_numpy())
    mean_square = np.asarray(values.multiply(values).mean(axis=0)).ravel()
    variance = mean_square - np.asarray(values.mean(axis=0)).ravel() ** 2
    genes = np.sort(np.argsort(-variance)[:1000])
    return cells[:, genes].copy(), principal_components(values[:, genes])


def test_pca_keeps_types_and_batches_apart_and_the_controls_stand_on_either_side(kang):
    cells, pca = kang
    judge = prepare(cells, BenchmarkSettings(n_inits=5), 0)
    scores = score_latent(pca, judge, "pca", 0).set_index("metric")["value"]
    controls = score_controls(pca, cells.obs["cell_type"], judge, 0)
    controls = controls.pivot_table(index="metric", columns="latent", values="value")
    assert scores["ilisi"] < 0.05 < 0.5 < controls.loc["ilisi", "shuffled"]
    assert controls.loc["preservation", "shuffled"] < 0.1 < 0.5 < scores["preservation"]
    for metric in ("knn_accuracy", "nmi", "ari", "clisi"):
        assert controls.loc[metric, "shuffled"] < scores[metric] < controls.loc[metric, "labels"]
    assert controls.loc["nmi", "shuffled"] < 0.1
