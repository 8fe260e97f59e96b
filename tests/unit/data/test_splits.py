from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sclatent.data.splits import CELLS, LABELS, Shares, split_cells
from sclatent.errors import InputError


def make(sizes):
    """Cells of given numbers per (batch, label)."""
    rows = [
        (f"{batch}_{label}_{i}", batch, label)
        for (batch, label), size in sizes.items()
        for i in range(size)
    ]
    table = pd.DataFrame(rows, columns=["cell", "batch", "cell_type"]).set_index("cell")
    return table.sample(frac=1, random_state=0)


datasets = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["t", "b", "nk", "Unknown"])),
    st.integers(1, 40),
    min_size=1,
).map(make)


def test_the_settings_are_those_of_the_schema(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    keys = schema["properties"]["splits"]["properties"]
    assert {key: value["default"] for key, value in keys.items()} == asdict(Shares())


@settings(deadline=None, max_examples=60)
@given(obs=datasets, seed=st.integers(0, 99))
def test_partitions_are_complete_and_nothing_hidden_is_seen(obs, seed):
    table = split_cells(obs, Shares(), seed)
    assert list(table["cell"]) == list(obs.index)
    assert set(table["cells"]) <= set(CELLS)
    assert set(table["labels"]) <= set(LABELS)
    unknown = (obs["cell_type"] == "Unknown").to_numpy()
    np.testing.assert_array_equal(table["labels"] == "unknown", unknown)
    heldout = table[(table["cells"] == "heldout") & ~unknown]
    assert set(heldout["labels"]) <= {"test"}


@settings(deadline=None, max_examples=60)
@given(obs=datasets, seed=st.integers(0, 99), heldout=st.floats(0.05, 0.5))
def test_shares_of_cells_hold_in_every_batch_and_cell_type_within_rounding(obs, seed, heldout):
    table = split_cells(obs, Shares(heldout=heldout), seed).set_index("cell")
    for keys in (["batch"], ["batch", "cell_type"]):
        for _, part in obs.groupby(keys):
            n_heldout = (table.loc[part.index, "cells"] == "heldout").sum()
            assert abs(n_heldout - heldout * len(part)) < 1
            n_left = len(part) - n_heldout
            n_validation = (table.loc[part.index, "cells"] == "validation").sum()
            assert abs(n_validation - 0.1 * n_left) < 1


@settings(deadline=None, max_examples=60)
@given(obs=datasets, seed=st.integers(0, 99))
def test_shares_of_labels_hold_in_every_cell_type_as_far_as_sizes_allow(obs, seed):
    table = split_cells(obs, Shares(heldout=0.05), seed).set_index("cell")
    for name, part in obs[obs["cell_type"] != "Unknown"].groupby("cell_type"):
        labels = table.loc[part.index, "labels"]
        n_heldout = (table.loc[part.index, "cells"] == "heldout").sum()
        if n_heldout < len(part):
            assert (labels == "train").any(), name
        if len(part) < 3:
            assert (labels == "test").sum() == n_heldout
        else:
            n_test = max(np.floor(0.2 * len(part) + 0.5), n_heldout)
            assert (labels == "test").sum() == min(n_test, max(len(part) - 1, n_heldout))
            assert (labels == "calibration").sum() <= np.floor(0.1 * len(part) + 0.5)


def test_a_training_label_lies_on_a_training_cell_where_there_is_one():
    obs = make({("a", "t"): 50, ("a", "rare"): 4})
    for seed in range(40):
        table = split_cells(obs, Shares(heldout=0.3, validation=0.5, label_test=0.8), seed)
        table["cell_type"] = obs["cell_type"].to_numpy()
        for _, part in table[table["cells"] == "train"].groupby("cell_type"):
            assert (part["labels"] == "train").any()


def test_a_seed_gives_the_same_split_and_another_seed_another():
    obs = make({("a", "t"): 60, ("b", "b"): 60})
    pd.testing.assert_frame_equal(split_cells(obs, Shares(), 3), split_cells(obs, Shares(), 3))
    assert (split_cells(obs, Shares(), 3) != split_cells(obs, Shares(), 4)).any(axis=None)


@settings(deadline=None, max_examples=30)
@given(obs=datasets, seed=st.integers(0, 99))
def test_the_order_of_the_cells_does_not_matter(obs, seed):
    table = split_cells(obs, Shares(), seed).set_index("cell")
    other = split_cells(obs.sort_index(ascending=False), Shares(), seed).set_index("cell")
    pd.testing.assert_frame_equal(table, other.loc[table.index])


def test_every_cell_is_held_out_by_some_seed():
    obs = make({("a", "t"): 30, ("b", "t"): 1})
    heldout = [
        table.loc[table["cells"] == "heldout", "cell"]
        for table in (split_cells(obs, Shares(), seed) for seed in range(100))
    ]
    assert pd.concat(heldout).nunique() == 31


def test_labels_of_hidden_batches_are_all_test_while_their_cells_train():
    obs = make({("a", "t"): 50, ("b", "t"): 50, ("b", "Unknown"): 10})
    table = split_cells(obs, Shares(), 0, ["b"]).set_index("cell")
    hidden = table.loc[obs.index[obs["batch"] == "b"]]
    assert set(hidden["labels"]) == {"test", "unknown"}
    assert (hidden["cells"] == "train").sum() > 40
    seen = table.loc[obs.index[obs["batch"] == "a"], "labels"].value_counts()
    assert seen.to_dict() == {"train": 35, "test": 10, "calibration": 5}


def test_a_hidden_batch_that_does_not_exist_is_an_error_with_the_nearest_name():
    with pytest.raises(InputError, match=r"no batch 'batch_2'.*did you mean 'batch2'"):
        split_cells(make({("batch2", "t"): 9, ("b", "t"): 9}), Shares(), 0, ["batch_2"])


def test_hiding_every_labelled_batch_is_an_error():
    with pytest.raises(InputError, match="none to learn from"):
        split_cells(make({("a", "t"): 9, ("b", "Unknown"): 9}), Shares(), 0, ["a"])


def test_a_dataset_without_labels_is_split_all_the_same():
    table = split_cells(make({("a", "Unknown"): 50}), Shares(), 0)
    assert set(table["labels"]) == {"unknown"}
    assert (table["cells"] == "train").sum() in (40, 41)


def test_real_labels_are_split_with_rare_ones_kept_for_training(shared_data, capsys):
    import anndata

    path = shared_data / "pbmc_labelled_4batch.h5ad"
    obs = anndata.read_h5ad(path, backed="r").obs
    table = split_cells(obs, Shares(), 0)
    labels = table["labels"][(obs["cell_type"] == "Erythrocytes").to_numpy()]
    assert len(labels) == 1
    assert "Erythrocytes (1)" in capsys.readouterr().out
