import numpy as np
import pytest

from sclatent.labels.calibration import calibrate, cool, fit_temperature
from sclatent.labels.tables import Predictions


def overconfident(sharpness: float, n_cells: int = 20_000):
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (n_cells, 4))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (honest.cumsum(1) < random.random((n_cells, 1))).sum(1)
    return cool(honest, 1 / sharpness), truth


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_planted_temperature_is_found(sharpness):
    assert fit_temperature(*overconfident(sharpness)) == pytest.approx(sharpness, rel=0.1)


def test_no_prediction_changes_and_rows_sum_to_one():
    probabilities, _ = overconfident(3.0, 100)
    cooled = cool(probabilities, 2.5)
    assert np.array_equal(cooled.argmax(1), probabilities.argmax(1))
    np.testing.assert_allclose(cooled.sum(1), 1)


def test_only_calibration_cells_set_the_temperature():
    probabilities, truth = overconfident(3.0, 400)
    classes = np.array(list("abcd"))
    cells = np.array([f"c{number}" for number in range(400)])
    labels = classes[truth]
    split = np.where(np.arange(400) < 200, "calibration", "test")
    first = calibrate(Predictions(cells, classes, probabilities), labels, split)
    labels[200:] = "a"
    second = calibrate(Predictions(cells, classes, probabilities), labels, split)
    assert np.array_equal(first.probabilities, second.probabilities)


def test_few_cells_leave_the_probabilities_alone(capsys):
    probabilities, truth = overconfident(3.0, 50)
    classes = np.array(list("abcd"))
    split = np.where(np.arange(50) < 10, "calibration", "train")
    given = Predictions(np.arange(50).astype(str), classes, probabilities)
    assert calibrate(given, classes[truth], split) is given
    assert "too few" in capsys.readouterr().out
