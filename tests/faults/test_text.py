"""Names from data that other programs would take for more than names."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sclatent import files

NAMES = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "'=1",
    "''-x",
    "'plain",
    "CD4+ T",
    "β",
]


def test_case_56_names_that_a_spreadsheet_takes_for_formulas_are_quoted(tmp_path):
    path = tmp_path / "table.tsv"
    table = pd.DataFrame({"cell": NAMES, "score": range(-5, 5)})
    files.write_table(path, table)
    written = pd.read_csv(path, sep="\t", dtype=str)
    assert not written["cell"].str.match(r"[=+\-@\t\r]").any()
    assert written["score"].tolist() == list(map(str, range(-5, 5)))
    assert files.read_table(path)["cell"].tolist() == NAMES


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.text(st.sampled_from("'=+-@\ta1β"), min_size=1), min_size=1))
def test_case_56_every_name_is_read_as_it_was_before_it_was_quoted(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("text") / "table.tsv.gz"
    files.write_table(path, pd.DataFrame({"cell": names}))
    assert files.read_table(path)["cell"].tolist() == names
