"""Metrics against those of scib-metrics."""

import pytest
import scib_metrics
from scib_metrics.nearest_neighbors import NeighborsResults

from sclatent.benchmark import metrics
from sclatent.cells.neighbors import exact_neighbors


@pytest.mark.parametrize("metric", ["ilisi_knn", "clisi_knn"])
def test_lisi_agrees_with_scib_metrics_on_the_same_neighbors(planted, metric):
    latent, labels, batches = planted
    indices, distances = exact_neighbors(latent, 90)
    neighbors = NeighborsResults(indices=indices, distances=distances)
    codes = batches if metric == "ilisi_knn" else labels
    own = metrics.ilisi if metric == "ilisi_knn" else metrics.clisi
    assert abs(own(latent, codes) - getattr(scib_metrics, metric)(neighbors, codes)) <= 1e-5
