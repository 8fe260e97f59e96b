"""Batch and label columns of any type become clean categories, or an error that helps."""

import gzip

import numpy as np
import pandas as pd
import pytest

from sclatent.data import columns
from sclatent.data.settings import Entry, Limits
from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError


def table(**given):
    n_cells = len(next(iter(given.values())))
    return pd.DataFrame(given, index=[f"c{i}" for i in range(n_cells)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, 2]), ["1", "2"]),
        (pd.Series([1.0, 2.5, np.nan]), ["1", "2.5", None]),
        (pd.Series([True, False]), ["True", "False"]),
        (pd.Series(["a", "", None], dtype=object), ["a", None, None]),
        (pd.Series([1, 1.0, "1"], dtype=object), ["1", "1", "1"]),
        (pd.Series(pd.Categorical([1.0, np.nan])), ["1", None]),
        (pd.Series(pd.Categorical(["b c/ü"], categories=["x", "b c/ü"])), ["b c/ü"]),
    ],
)
def test_values_of_any_type_become_text(values, expected):
    assert columns.as_text(values).where(lambda column: column.notna(), None).tolist() == expected


def test_a_missing_column_names_the_nearest():
    problems = []
    obs = table(donor_id=["a", "b"], sex=["f", "m"])
    columns.name_batches(obs, Entry(batch="donor"), "mine", problems)
    columns.name_labels(obs, Entry(cell_type="celltype"), "mine", problems)
    columns.kept_cells(obs, Entry(keep={"sx": ["f"]}), "mine", problems)
    assert len(problems) == 3
    assert "did you mean 'donor_id'? There are: donor_id, sex" in problems[0]


def test_cells_without_a_batch_are_refused_with_their_number():
    problems = []
    obs = table(batch=["a", None, None])
    batch = columns.name_batches(obs, Entry(batch="batch"), "mine", problems)
    columns.treat_small_batches(batch, Limits(3, "error"), "mine", problems)
    (line,) = problems
    assert "2 of 3 cells have no batch" in line


def test_without_a_batch_column_samples_are_batches_else_the_dataset_is_one():
    assert columns.name_batches(table(source_sample=["s", "t"]), Entry(), "mine", []).tolist() == [
        "s",
        "t",
    ]
    assert columns.name_batches(table(sample=[1, 2]), Entry(), "mine", []).tolist() == ["mine"] * 2


def treat(sizes, n_cells=3, small="error"):
    batch = pd.Series([key for key, size in sizes.items() for _ in range(size)])
    problems = []
    new, kept = columns.treat_small_batches(batch, Limits(n_cells, small), "mine", problems)
    return new[kept].value_counts().to_dict(), problems


def test_small_batches_are_refused_dropped_or_merged_as_the_config_says(capsys):
    sizes = {"a": 5, "b": 1, "c": 2}
    _, problems = treat(sizes)
    assert "2 of 3 batches have fewer than 3 cells: b (1), c (2)" in problems[0]
    assert treat(sizes, small="drop") == ({"a": 5}, [])
    assert treat(sizes, small="merge") == ({"a": 5, "merged": 3}, [])
    assert capsys.readouterr().out.count("WARNING 2 of 3 batches") == 2
    assert treat(sizes, n_cells=1)[0] == sizes


@pytest.mark.parametrize("sizes", [{"a": 5, "b": 4, "c": 2}, {"a": 5, "b": 4, "c": 1, "d": 1}])
def test_small_batches_that_are_too_few_together_join_the_smallest_of_the_others(sizes, capsys):
    assert treat(sizes, small="merge") == ({"a": 5, "b": 6}, [])
    assert "join the smallest of the others, 'b': c" in capsys.readouterr().out


def test_small_batches_that_are_too_few_together_and_alone_are_not_merged():
    assert treat({"a": 1, "b": 1}, small="merge")[1]


@pytest.mark.parametrize(
    ("sizes", "fix"),
    [
        ({"a": 5, "b": 1}, "set input.small_batches to drop or merge, or lower"),
        ({"a": 2, "b": 2}, "set input.small_batches to merge, or lower"),
        ({"a": 1, "b": 1}, "lower input.min_cells_per_batch, or add cells"),
    ],
)
def test_the_way_out_of_small_batches_is_one_that_works(sizes, fix):
    (line,) = treat(sizes)[1]
    assert f"Fix: {fix}" in line


def test_a_dataset_of_small_batches_only_is_not_dropped_whole():
    assert treat({"a": 2, "b": 1}, small="drop")[1]


def labels_of(values, **entry):
    problems = []
    labels = columns.name_labels(table(l=values), Entry(cell_type="l", **entry), "mine", problems)
    return labels.tolist(), problems


def test_missing_labels_and_the_configured_value_become_unknown(capsys):
    labels, problems = labels_of(["T", None, "?", np.nan], unknown="?")
    assert labels == ["T", UNKNOWN, UNKNOWN, UNKNOWN]
    assert not problems
    assert "2 cells have no value" in capsys.readouterr().out


def test_a_misspelt_unknown_value_names_the_nearest():
    assert "did you mean 'Unknown'" in labels_of(["T", "Unknown"], unknown="unknown")[1][0]


@pytest.mark.parametrize("label", ["unknown", "NA", "nan", "Unassigned"])
def test_a_label_that_sounds_unknown_is_warned_about_when_it_is_not_configured(label, capsys):
    labels, problems = labels_of(["T", label])
    assert labels == ["T", label]
    assert not problems
    assert f"WARNING '{label}' (1 cells) counts as a cell type" in capsys.readouterr().out
    labels_of(["T", label], unknown=label)
    assert "WARNING" not in capsys.readouterr().out


def test_the_literal_unknown_is_said_to_count_as_not_labelled(capsys):
    labels_of(["T", UNKNOWN])
    assert "WARNING cells labelled 'Unknown' count as not labelled" in capsys.readouterr().out
    labels_of(["T", UNKNOWN], unknown=UNKNOWN)
    assert "WARNING" not in capsys.readouterr().out


def test_without_a_label_column_every_cell_is_unknown():
    assert columns.name_labels(table(x=[1, 2]), Entry(), "mine", []).tolist() == [UNKNOWN] * 2


def check(labels, batch, **entry):
    problems = []
    entry = Entry(cell_type="l", **entry)
    columns.check_labels(pd.Series(labels), pd.Series(batch), entry, "mine", problems)
    return problems


def test_a_dataset_without_labels_is_warned_of_and_one_that_hides_them_all_is_refused(capsys):
    assert not check([UNKNOWN] * 2, ["a", "b"])
    assert "WARNING 0 of 2 cells have a label in l" in capsys.readouterr().out
    seen = check(["T", UNKNOWN], ["a", "b"], hidden_batches=["a"])
    assert "0 of 2 cells are labelled outside the hidden batches" in seen[0]
    assert not check(["T", UNKNOWN], ["a", "b"])


def test_a_hidden_batch_that_does_not_exist_names_the_nearest():
    problems = check(["T", "T"], ["donor1", "donor2"], hidden_batches=["donor3"])
    assert "there is no batch 'donor3' to hide" in problems[0]


def test_keep_filters_by_value_of_any_type(capsys):
    obs = table(call=["SNG", "DBL", "SNG"], ok=[True, True, False], lane=[1.0, 2.0, np.nan])
    problems = []
    for keep, expected in (
        ({"call": ["SNG"]}, [True, False, True]),
        ({"call": ["SNG"], "ok": [True]}, [True, False, False]),
        ({"lane": [1, 2]}, [True, True, False]),
    ):
        assert columns.kept_cells(obs, Entry(keep=keep), "mine", problems).tolist() == expected
    assert not problems
    assert "keep call: 2 of 3 cells" in capsys.readouterr().out


def test_keep_of_a_value_that_no_cell_has_names_the_nearest():
    problems = []
    columns.kept_cells(table(call=["SNG"]), Entry(keep={"call": ["sng"]}), "mine", problems)
    assert "did you mean 'SNG'" in problems[0]


def test_annotations_join_by_cell_and_say_how_many(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("\ufeffcell,type,donor\nc2,T,1\nc0,B,2\nelse,B,3\n")
    obs = columns.join_annotations(table(type=["x", "y", "z"]), str(tmp_path / "a.csv"), [])
    assert obs["type"].tolist()[::2] == ["B", "T"]
    assert obs["type"].isna().tolist() == [False, True, False]
    assert "annotates 2 of 3 cells with type, donor" in capsys.readouterr().out


def test_annotations_join_by_barcode_when_no_cell_has_the_name(tmp_path):
    (tmp_path / "a.tsv").write_text("cell\ttype\nAAA\tT\nCCC\tNA\n")
    obs = columns.join_annotations(
        table(source_barcode=["CCC", "AAA"]), str(tmp_path / "a.tsv"), []
    )
    assert obs["type"].tolist() == ["NA", "T"]


def test_gzipped_annotations_are_read_unless_they_unpack_to_more_than_allowed(tmp_path):
    path, content = tmp_path / "a.csv.gz", b"cell,type\nc0,T\n"
    path.write_bytes(gzip.compress(content))
    assert columns.join_annotations(table(x=[1]), str(path), [])["type"].tolist() == ["T"]
    path.write_bytes(gzip.compress(content + b"\n" * 11_000_000))
    with pytest.raises(InputError, match=r"E332 .*a.csv.gz: is refused"):
        columns.join_annotations(table(x=[1]), str(path), [])


def test_annotations_of_other_cells_or_with_repeated_ones_are_refused(tmp_path):
    path, problems = tmp_path / "a.csv", []
    path.write_text("cell,type\nx,T\n")
    columns.join_annotations(table(x=[1]), str(path), problems)
    path.write_text("cell,type\nc0,T\nc0,B\n")
    columns.join_annotations(table(x=[1]), str(path), problems)
    assert "none of its 1 cells, such as x, is in the dataset" in problems[0]
    assert "a cell occurs more than once, such as c0" in problems[1]


def test_other_columns_of_the_same_names_are_kept_aside_and_unused_categories_go():
    obs = table(
        batch=["run1", "run2"],
        cell_type=["old", "old"],
        donor=pd.Categorical(["a", "b"], categories=["a", "b", "c"]),
        note=pd.Series([1, "x"], dtype=object, index=["c0", "c1"]),
    )
    done = columns.rename_columns(obs, Entry(batch="donor"), obs["donor"], ["T", "B"])
    assert done["original_batch"].tolist() == ["run1", "run2"]
    assert done["original_cell_type"].tolist() == ["old", "old"]
    assert done["batch"].tolist() == ["a", "b"]
    assert list(done["donor"].cat.categories) == ["a", "b"]
    assert done["note"].tolist() == ["1", "x"]
    again = columns.rename_columns(
        done, Entry(batch="batch", cell_type="cell_type"), done["batch"], done["cell_type"]
    )
    assert set(again.columns) == set(done.columns)


def test_a_column_kept_aside_never_takes_the_place_of_another(capsys):
    obs = table(batch=["run1", "run2"], original_batch=["x", "y"], donor=["a", "b"])
    done = columns.rename_columns(obs, Entry(batch="donor"), obs["donor"], ["T", "B"])
    assert done["original_batch"].tolist() == ["x", "y"]
    assert done["original_original_batch"].tolist() == ["run1", "run2"]
    assert "'batch' that came with the data is kept as 'orig" in capsys.readouterr().out
