"""Label transfer: what is learnt from, what comes out, and the edges."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from sclatent.labels import transfer
from sclatent.labels.transfer import TransferSettings, transfer_labels

SETTINGS = TransferSettings()


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=300)
    latent = 3 * np.eye(3, 6)[codes] + rng.normal(size=(300, 6))
    return latent.astype(np.float32), np.array(["T", "B", "NK"])[codes], rng.random(300) < 0.5


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_planted_types_are_predicted_with_probabilities(classifier, planted):
    latent, labels, learnt = planted
    classes, probabilities = transfer_labels(latent, labels, learnt, classifier, SETTINGS)
    assert classes.tolist() == ["B", "NK", "T"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (classes[probabilities.argmax(axis=1)] == labels)[~learnt].mean() > 0.85


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_hidden_labels_do_not_matter(classifier, planted):
    latent, labels, learnt = planted
    hidden = np.where(learnt, labels, "Unknown")
    expected = transfer_labels(latent, labels, learnt, classifier, SETTINGS)
    found = transfer_labels(latent, hidden, learnt, classifier, SETTINGS)
    assert found[0].tolist() == expected[0].tolist()
    np.testing.assert_array_equal(found[1], expected[1])


def test_neighbors_vote_with_equal_shares(planted):
    latent, labels, learnt = planted
    settings = TransferSettings(n_neighbors=7)
    classes, shares = transfer_labels(latent, labels, learnt, "knn", settings)
    search = NearestNeighbors(n_neighbors=7).fit(latent[learnt])
    votes = labels[learnt][search.kneighbors(latent, return_distance=False)]
    expected = np.stack([(votes == name).mean(axis=1) for name in classes], axis=1)
    np.testing.assert_allclose(shares, expected)


def test_more_neighbors_than_labels_are_all_labels(planted):
    latent, labels, _ = planted
    learnt = np.zeros(300, bool)
    learnt[np.unique(labels, return_index=True)[1]] = True
    _, shares = transfer_labels(latent, labels, learnt, "knn", SETTINGS)
    np.testing.assert_allclose(shares, 1 / 3)


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_a_single_type_is_everywhere_and_the_log_warns(classifier, planted, capsys):
    latent, labels, learnt = planted
    learnt = learnt & (labels == "B")
    classes, probabilities = transfer_labels(latent, labels, learnt, classifier, SETTINGS)
    assert classes.tolist() == ["B"]
    assert probabilities.tolist() == [[1.0]] * 300
    assert "WARNING one type only" in capsys.readouterr().out


def test_two_types_are_enough_for_logistic_regression(planted):
    latent, labels, learnt = planted
    learnt = learnt & (labels != "B")
    classes, probabilities = transfer_labels(latent, labels, learnt, "logistic", SETTINGS)
    assert classes.tolist() == ["NK", "T"]
    assert probabilities.shape == (300, 2)


def test_without_training_labels_every_cell_stays_unknown_and_the_log_warns(planted, capsys):
    latent, labels, learnt = planted
    classes, probabilities = transfer_labels(latent, labels, np.zeros_like(learnt), "knn", SETTINGS)
    assert classes.tolist() == ["Unknown"]
    assert probabilities.tolist() == [[1.0]] * 300
    assert "none of 300 cells has a label to learn from" in capsys.readouterr().out


def test_of_very_many_labels_a_part_is_learnt_from_with_every_type(monkeypatch, capsys):
    monkeypatch.setattr(transfer, "MAX_LEARNT", 400)
    labels = np.array(["common"] * 1990 + ["rare"] * 10)
    learnt = np.arange(2000) % 5 > 0
    drawn = transfer.draw_learnt(labels, learnt)
    assert not (drawn & ~learnt).any()
    assert 400 <= drawn.sum() <= 408
    assert (drawn == learnt)[labels == "rare"].all()
    assert "drawn at random" in capsys.readouterr().out
    np.testing.assert_array_equal(transfer.draw_learnt(labels[:400], learnt[:400]), learnt[:400])
