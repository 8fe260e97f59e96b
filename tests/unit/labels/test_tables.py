"""The table of a classifier."""

import numpy as np
import pytest

from sclatent.errors import InputError
from sclatent.labels.tables import labels_table, read_labels, write_labels

CELLS, CLASSES = ["c1", "c2", "NA"], ["B cell", "NA", "T/NK"]
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])


def test_the_table_holds_the_likeliest_class_and_all_probabilities():
    table = labels_table(CELLS, CLASSES, PROBABILITIES)
    assert table.columns.tolist() == [
        "cell", "label", "probability", "p:B cell", "p:NA", "p:T/NK",
    ]  # fmt: skip
    assert table["label"].tolist() == ["B cell", "T/NK", "B cell"]
    assert table["probability"].tolist() == [0.7, 0.8, 0.4]


def test_a_table_comes_back_from_its_file_in_the_order_asked_for(tmp_path):
    path = tmp_path / "labels.tsv.gz"
    write_labels(path, labels_table(CELLS, CLASSES, PROBABILITIES))
    back = read_labels(path, ["NA", "c1"])
    assert back.cells.tolist() == ["NA", "c1"]
    assert back.classes.tolist() == CLASSES
    assert back.labels.tolist() == ["B cell", "B cell"]
    np.testing.assert_allclose(back.probabilities, PROBABILITIES[[2, 0]])
    assert read_labels(path).cells.tolist() == CELLS


def test_a_cell_without_a_row_is_refused(tmp_path):
    write_labels(tmp_path / "labels.tsv", labels_table(CELLS, CLASSES, PROBABILITIES))
    with pytest.raises(InputError, match="'c9'"):
        read_labels(tmp_path / "labels.tsv", ["c9"])
