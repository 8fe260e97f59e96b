import gzip
import os

import numpy as np
import pandas as pd
import pytest

from sclatent import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "table.tsv"
    files.write_text(path, "good")
    with pytest.raises(ZeroDivisionError), files.safely(path) as partial:
        assert partial.write_text("half") / 0
    assert path.read_text() == "good"
    assert os.listdir(path.parent) == ["table.tsv"]


def test_tables_come_back_with_their_names_and_numbers(tmp_path):
    table = pd.DataFrame(
        {"cell": ["1", "NA"], "value": [0.1234567891, np.nan], "kept": [True, False]}
    )
    for name in ("t.tsv", "t.tsv.gz"):
        files.write_table(tmp_path / name, table)
        again = files.read_table(tmp_path / name)
        assert again["cell"].tolist() == ["1", "NA"]
        assert again["value"].iloc[0] == pytest.approx(0.1234567891, rel=1e-6)
        assert np.isnan(again["value"].iloc[1])
        assert again["kept"].tolist() == [True, False]


def test_equal_tables_are_equal_bytes(tmp_path):
    table = pd.DataFrame({"cell": ["a"], "value": [1.5]})
    for name in ("one.tsv.gz", "two.tsv.gz"):
        files.write_table(tmp_path / name, table)
    assert files.sha256(tmp_path / "one.tsv.gz") == files.sha256(tmp_path / "two.tsv.gz")
    assert gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()) == b"cell\tvalue\na\t1.5\n"


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (4_200_000, "4.2 MB"), (3e15, "3e+03 TB")]
)
def test_sizes_are_said_for_people(n_bytes, text):
    assert files.size(n_bytes) == text
