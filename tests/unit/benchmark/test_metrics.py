"""Metrics against references, and the properties that make them honest."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from sclatent.benchmark import metrics
from sclatent.cells.neighbors import exact_neighbors


def every_metric(latent, labels, batches):
    judged = np.ones(len(labels), dtype=bool)
    references = {
        int(batch): exact_neighbors(REFERENCE[batches == batch], 20)[0]
        for batch in np.unique(batches)
    }
    return {
        "knn_accuracy": metrics.knn_accuracy(latent, labels, batches, judged),
        "nmi": metrics.nmi(latent, labels),
        "ari": metrics.ari(latent, labels),
        "clisi": metrics.clisi(latent, labels),
        "graph_connectivity": metrics.graph_connectivity(latent, labels),
        "ilisi": metrics.ilisi(latent, batches),
        "preservation": metrics.preservation(latent, batches, references),
    }


REFERENCE = np.random.default_rng(9).normal(size=(600, 5))


def test_knn_accuracy_is_that_of_sklearn_trained_on_the_other_batches(planted):
    latent, labels, batches = planted
    judged = np.random.default_rng(1).random(600) < 0.5
    right = []
    for batch in range(3):
        asked = judged & (batches == batch) & (labels != 3)
        model = KNeighborsClassifier(1).fit(latent[batches != batch], labels[batches != batch])
        right += (model.predict(latent[asked]) == labels[asked]).tolist()
    assert metrics.knn_accuracy(latent, labels, batches, judged, k=1) == pytest.approx(
        np.mean(right)
    )


def test_knn_accuracy_counts_only_judged_cells_of_types_in_two_batches():
    latent = np.array([[0.0, 0, 0], [9, 9, 9], [0, 0, 1], [9, 9, 8], [5, 5, 5], [0, 1, 0]])
    labels, batches = np.array([0, 1, 0, 1, 2, -1]), np.array([0, 0, 1, 1, 1, 0])
    judged = np.array([True, True, False, False, True, True])
    assert metrics.knn_accuracy(latent, labels, batches, judged, k=1) == 1
    labels = np.array([0, 1, 1, 0, 2, -1])
    assert metrics.knn_accuracy(latent, labels, batches, judged, k=1) == 0
    only_private = np.array([False, False, False, False, True, True])
    assert np.isnan(metrics.knn_accuracy(latent, labels, batches, only_private, k=1))


def test_a_private_type_laid_over_another_costs_knn_accuracy(planted):
    latent, labels, batches = planted
    judged = np.ones(600, dtype=bool)
    mixed = latent.copy()
    mixed[labels == 3] += 4 * np.eye(4, 8)[0] - 4 * np.eye(4, 8)[3]
    before = metrics.knn_accuracy(latent, labels, batches, judged)
    assert metrics.knn_accuracy(mixed, labels, batches, judged) < before


def test_a_single_batch_votes_within_itself_without_the_cell(planted):
    latent, labels, _ = planted
    judged = np.ones(600, dtype=bool)
    found = metrics.knn_accuracy(latent, labels, np.zeros(600, int), judged, k=1)
    nearest = NearestNeighbors(n_neighbors=1).fit(latent).kneighbors(return_distance=False)[:, 0]
    assert found == pytest.approx((labels[nearest] == labels).mean())


def test_votes_are_won_by_number_and_ties_by_the_nearest():
    neighbors = np.array([[2, 1, 1, 0], [1, 2, 2, 1], [0, 1, 2, 3]])
    assert metrics.vote(neighbors).tolist() == [1, 1, 0]


def lisi_by_brute_force(latent, codes, k):
    """LISI by its definition, one cell at a time, the bandwidth by a root finder."""
    from scipy.optimize import brentq

    result = []
    for cell in range(len(latent)):
        distances = np.linalg.norm(latent - latent[cell], axis=1)
        distances[cell] = np.inf
        nearest = np.argsort(distances)[:k]
        near = distances[nearest]

        def weights(log_beta, near=near):
            raw = np.exp(-np.exp(log_beta) * (near - near.min()))
            return raw / raw.sum()

        def excess(log_beta, weights=weights):
            return stats.entropy(weights(log_beta)) - np.log(k // 3)

        found = weights(brentq(excess, -20, 20))
        shares = [found[codes[nearest] == code].sum() for code in np.unique(codes)]
        result.append(1 / np.sum(np.square(shares)))
    return np.array(result)


def test_lisi_is_that_of_its_definition(planted):
    latent, labels, _ = (part[:150] for part in planted)
    found = metrics.lisi(*exact_neighbors(latent, 60), labels)
    np.testing.assert_allclose(found, lisi_by_brute_force(latent, labels, 60), rtol=1e-4)


def test_lisi_of_equal_cells_counts_the_shares_of_all():
    codes = np.arange(40) % 2
    found = metrics.lisi(*exact_neighbors(np.ones((40, 3)), 12), codes)
    assert found.min() > 1.8
    assert found.max() < 2 + 1e-9


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_lisi_does_not_depend_on_the_scale_of_the_latent(planted, scale):
    latent, _, batches = planted
    expected = metrics.ilisi(latent, batches)
    assert metrics.ilisi(scale * latent, batches) == pytest.approx(expected, abs=1e-4)


def test_connectivity_is_that_of_the_undirected_graph(planted):
    latent, labels, _ = planted
    graph = NearestNeighbors(n_neighbors=15).fit(latent).kneighbors_graph()
    graph = graph + graph.T
    expected = []
    for label in np.unique(labels):
        part = graph[labels == label][:, labels == label]
        members = sparse.csgraph.connected_components(part)[1]
        expected.append(np.bincount(members).max() / len(members))
    found = metrics.graph_connectivity(latent, labels)
    assert found == pytest.approx(np.mean(expected))


def test_a_type_cut_in_two_halves_its_connectivity():
    latent = np.random.default_rng(0).normal(size=(200, 3))
    latent[100:] += 100
    assert metrics.graph_connectivity(latent, np.zeros(200, int)) == 0.5


def test_preservation_is_the_share_of_neighbors_kept():
    batches = np.repeat([0, 1], 300)
    references = {b: exact_neighbors(REFERENCE[batches == b], 20)[0] for b in (0, 1)}
    assert metrics.preservation(REFERENCE, batches, references) == 1
    moved = REFERENCE + 50 * batches[:, None]
    assert metrics.preservation(moved, batches, references) == 1
    noise = np.random.default_rng(0).normal(size=(600, 5))
    assert metrics.preservation(noise, batches, references) == pytest.approx(20 / 299, abs=0.02)


def test_rotation_shift_and_new_names_change_nothing(planted):
    latent, labels, batches = planted
    rotation = stats.ortho_group.rvs(8, random_state=0)
    names = np.array([2, 0, 3, 1])
    moved = every_metric(latent @ rotation + 100, names[labels], names[batches])
    for name, expected in every_metric(latent, labels, batches).items():
        assert moved[name] == pytest.approx(expected, abs=1e-9), name


def test_the_order_of_the_cells_changes_nothing_but_kmeans_luck(planted):
    latent, labels, batches = planted
    order = np.random.default_rng(0).permutation(600)
    global REFERENCE
    before = every_metric(latent, labels, batches)
    kept, REFERENCE = REFERENCE, REFERENCE[order]
    after = every_metric(latent[order], labels[order], batches[order])
    REFERENCE = kept
    for name, expected in before.items():
        tolerance = 0.06 if name in ("nmi", "ari") else 1e-9
        assert after[name] == pytest.approx(expected, abs=tolerance), name


def test_the_same_latent_twice_has_no_difference(planted):
    assert every_metric(*planted) == every_metric(*planted)


def test_a_growing_batch_shift_lowers_the_batch_metrics_step_by_step(planted):
    latent, labels, batches = planted
    mixed, right = [], []
    for shift in (0, 2, 4, 8):
        moved = latent + shift * np.eye(8)[batches + 4]
        mixed.append(metrics.ilisi(moved, batches))
        right.append(metrics.knn_accuracy(moved, labels, batches, np.ones(600, bool)))
    assert (np.diff(mixed) < 0).all()
    assert right[-1] <= right[0]
    assert mixed[-1] == pytest.approx(0, abs=1e-3)


def test_shuffled_labels_share_nothing_with_the_clusters(planted):
    latent, labels, _ = planted
    shuffled = np.random.default_rng(0).permutation(labels)
    nmi, ari = metrics.kmeans_agreement(latent, shuffled)
    assert nmi < 0.02
    assert abs(ari) < 0.02
    assert metrics.nmi(latent, labels) > 0.8


def test_what_is_not_defined_is_nan():
    latent, one = np.random.default_rng(0).normal(size=(30, 4)), np.zeros(30, int)
    assert np.isnan(metrics.ilisi(latent, one))
    assert np.isnan(metrics.clisi(latent, one))
    assert np.isnan(metrics.nmi(latent, one))
    assert np.isnan(metrics.clisi(latent[:0], one[:0]))
    assert np.isnan(metrics.graph_connectivity(latent[:0], one[:0]))
    assert np.isnan(metrics.kmeans_agreement(latent[:0], one[:0])).all()
    assert np.isnan(metrics.knn_accuracy(latent, one - 1, one, one == 0))
