"""Covariates of any type become clean columns, or an error that helps."""

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sclatent import files
from sclatent.data import covariates
from sclatent.data.blocks import open_dataset, write_dataset
from sclatent.data.chosen import read_counts
from sclatent.data.qc import Filters, filter_cells
from sclatent.data.settings import Entry, Limits
from sclatent.data.simulate import Simulation, simulate
from sclatent.data.sources import read_dataset
from sclatent.data.store import QC_METRICS, UNKNOWN, read_cells
from sclatent.data.store import covariates as names_of
from sclatent.errors import InputError

N = 8
BATCH = list("aaaabbbb")
LABELS = ["T", "B"] * 4
SEX = list("ffmmffmm")
WIDE = Filters(n_mads=1e6, min_counts=1, min_genes=1, max_pct_mt=100, doublets=False)


def table(**columns):
    index = [f"c{i}" for i in range(N)]
    return pd.DataFrame({name: list(given) for name, given in columns.items()}, index=index)


def read(obs, labels=LABELS, batch=BATCH, **entry):
    problems = []
    batch, labels = (pd.Series(given, index=obs.index) for given in (batch, labels))
    found = covariates.read_covariates(obs, batch, labels, Entry(**entry), "mine", problems)
    return found, problems


def categorical(values, **given):
    return read(pd.DataFrame({"x": values}), categorical_covariates=["x"], **given)


def continuous(values, **given):
    return read(pd.DataFrame({"x": values}), continuous_covariates=["x"], **given)


@pytest.mark.parametrize(
    "values",
    [
        SEX,
        pd.Categorical(SEX, categories=["x", "m", "f"], ordered=True),
        pd.Series([1.0, 1.0, 2.0, 2.0] * 2),
        pd.Series([1, 1, 2, 2] * 2, dtype="Int64"),
        [True, True, False, False] * 2,
        [1, 1.0, "b c/ü", "b c/ü"] * 2,
    ],
)
def test_categories_of_any_type_become_text_without_unused_ones(values):
    found, problems = categorical(values)
    assert not problems
    column = found["x"]
    assert isinstance(column, pd.Categorical)
    assert len(column.categories) == 2 == len(set(column))
    assert all(isinstance(category, str) for category in column.categories)
    assert list(column.codes[:4]) in ([0, 0, 1, 1], [1, 1, 0, 0])


@pytest.mark.parametrize(
    "values",
    [
        range(N),
        np.arange(N, dtype=np.float16),
        pd.Series(range(N), dtype="Int16"),
        pd.Categorical(range(N)),
        [str(i) for i in range(N)],
        [0, "1", 2.0, "3e0", 4, 5, 6, " 7"],
    ],
)
def test_numbers_of_any_type_become_float64(values):
    found, problems = continuous(values)
    assert not problems
    assert found["x"].dtype == np.float64
    assert found["x"].tolist() == list(range(N))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, N - 1),
    st.sampled_from(
        [
            (np.nan, "1 of 8 cells have no 'x', such as c"),
            (None, "1 of 8 cells have no 'x', such as c"),
            ("", "1 of 8 cells have no 'x', such as c"),
            (np.inf, "1 of 8 values of 'x' are infinite or too large, such as inf for cell c"),
            (-1e300, "1 of 8 values of 'x' are infinite or too large, such as -1e+300 for cell c"),
            ("1,5", "1 of 8 values of 'x' are not numbers, such as 1,5 for cell c"),
            (pd.Timestamp(0), "1 of 8 values of 'x' are not numbers, such as 1970-01-01"),
        ]
    ),
)
def test_one_bad_number_anywhere_is_found_with_its_cell(place, bad):
    value, words = bad
    values = list(range(N))
    values[place] = value
    _, problems = read(table(x=values), continuous_covariates=["x"])
    assert len(problems) == 1
    assert f" dataset mine: continuous_covariates: {words}" in problems[0]
    assert f"c{place}" in problems[0]
    assert "leave 'x' out" in problems[0]


def test_cells_without_a_category_are_refused_with_their_number():
    _, problems = read(table(sex=[*SEX[:6], None, ""]), categorical_covariates=["sex"])
    assert "categorical_covariates: 2 of 8 cells have no 'sex', such as c6. Fix: " in problems[0]


def test_a_missing_column_names_the_nearest_also_among_the_metrics():
    obs = table(donor_id=SEX, age=range(N))
    _, problems = read(
        obs, categorical_covariates=["donor"], continuous_covariates=["pct_count_mt", "agee"]
    )
    assert (
        "'donor' is no column of obs. Fix: name a column; did you mean 'donor_id'?" in problems[0]
    )
    assert "did you mean 'pct_counts_mt'" in problems[1]
    assert "did you mean 'age'" in problems[2]


@pytest.mark.parametrize("n_values", [5, 8])
def test_a_column_that_names_cells_is_no_covariate(n_values):
    values = [f"cell{i % n_values}" for i in range(N)]
    _, problems = categorical(values, labels=[UNKNOWN] * N)
    assert len(problems) == 1
    assert f"'x' has {n_values} values in 8 cells, such as cell0" in problems[0]
    assert not categorical([f"v{i % 4}" for i in range(N)], labels=[UNKNOWN] * N)[1]


@pytest.mark.parametrize("values", [BATCH, list("yyyyxxxx"), [1.0] * 4 + [2.0] * 4])
def test_the_batch_under_other_names_is_no_covariate(values):
    _, problems = categorical(values)
    assert len(problems) == 1
    assert "is the batch under other names" in problems[0]
    assert f"{str(values[0]).removesuffix('.0')} is batch a" in problems[0]


def test_a_covariate_may_lie_across_batches_within_them_or_be_coarser(capsys):
    four = list("aabbccdd")
    for values, batch in ((SEX, BATCH), (four, BATCH), (BATCH, four)):
        assert not categorical(values, batch=batch)[1]
    assert capsys.readouterr().out.count("WARNING") == 1
    categorical(BATCH, batch=four)
    assert "'x' has one value in each batch" in capsys.readouterr().out


def test_what_tells_hidden_labels_is_no_covariate():
    labels = ["T", "T", "B", "B", *[UNKNOWN] * 4]
    for values in (["t", "t", "b", "b"] * 2, ["t1", "t2", "b", "b", "t1", "t2", "b", "b"]):
        labels_seen = [*labels[:4], "T", "T", "B", "B"]
        assert "tells hidden labels" in categorical(values, labels=labels_seen)[1][0]
    assert "tells hidden labels" in continuous([0, 0, 1, 1] * 2, labels=labels)[1][0]
    assert not categorical(["t", "b", "t", "b"] * 2, labels=labels)[1]
    assert not categorical(["t", "t", "b", "b"] * 2, labels=[UNKNOWN] * N)[1]
    assert not continuous(range(N), labels=labels)[1]


def test_a_constant_number_is_refused_and_a_single_category_is_kept_with_a_warning(capsys):
    assert "'x' is 3 in every cell. Fix: leave 'x' out" in continuous([3] * N)[1][0]
    found, problems = categorical(["f"] * N)
    assert not problems
    assert list(found["x"]) == ["f"] * N
    assert "'x' is f everywhere: models ignore it" in capsys.readouterr().out


def test_a_value_that_sounds_missing_is_warned_about(capsys):
    assert not categorical(["f", "f", "NA", "NA"] * 2)[1]
    assert "WARNING 'NA' (4 cells) counts as a value of x" in capsys.readouterr().out


def test_names_that_belong_to_the_workflow_are_refused_with_the_reason():
    own = ("donor", "label", "batch", "cells_split", "pct_counts_mt", "age")
    obs = table(**dict.fromkeys(own, SEX))
    found, problems = read(
        obs,
        batch=BATCH,
        categorical_covariates=own,
        continuous_covariates=["age"],
        **{"cell_type": "label"},
    )
    assert not found.keys() & {"label", "batch", "cells_split", "pct_counts_mt", "age"}
    text = "\n".join(problems)
    for words in (
        "'label' is the cell_type",
        "'batch' is a column that the workflow writes itself. Fix: give your column another name",
        "'cells_split' is a column that the workflow writes",
        "'pct_counts_mt' is a number of quality control. Fix: name it in continuous_covariates",
        "'age' is also in continuous_covariates. Fix: leave it in one of them",
    ):
        assert words in text
    assert len(problems) == 5


def test_the_batch_column_itself_is_refused():
    problems = []
    obs, entry = table(donor=BATCH), Entry(batch="donor", categorical_covariates=["donor"])
    covariates.read_covariates(obs, obs["donor"], obs["donor"], entry, "mine", problems)
    assert len(problems) == 1
    assert "'donor' is the batch, which the models know already" in problems[0]


def test_cells_of_the_same_name_do_not_hide_the_problems_of_covariates():
    obs = table(sex=[*SEX[:7], None], age=["x", *range(7)]).set_axis(["c"] * N)
    _, problems = read(obs, categorical_covariates=["sex"], continuous_covariates=["age"])
    assert len(problems) == 2


def make(n_cells=60, seed=0, n_empty=0, **obs):
    rng = np.random.default_rng(seed)
    genes = [*(f"G{i}" for i in range(20)), "MT-CO1", "RPL3"]
    index = [f"cell{i}" for i in range(n_cells)]
    counts = rng.poisson(3, (n_cells, len(genes))).astype(np.int32)
    counts[n_cells - n_empty :] = 0
    columns = {name: list(given) for name, given in obs.items()}
    obs, var = pd.DataFrame(columns, index), pd.DataFrame(index=genes)
    return anndata.AnnData(sparse.csr_matrix(counts), obs, var)


def save(adata, path):
    adata.write_h5ad(path)
    return str(path)


def load(samples, **entry):
    samples = {"mine": samples} if isinstance(samples, str) else samples
    return read_dataset("mine", Entry(**entry), samples, Limits(min_cells_per_batch=2))


def through(folder, counts, filters=WIDE):
    """Write and read as the rules do, and return the cells that the models read."""
    write_dataset(folder / "counts.h5ad", counts)
    cells = filter_cells(open_dataset(folder / "counts.h5ad"), filters).cells
    write_dataset(folder / "cells.h5ad", cells)
    kept = cells.table.obs_names
    splits = pd.DataFrame({"cell": kept, "cells": "train", "labels": "train"})
    files.write_table(folder / "splits.tsv", splits)
    files.write_table(folder / "genes.tsv", pd.DataFrame({"gene": cells.table.var_names[:5]}))
    return read_counts(folder / "cells.h5ad", folder / "genes.tsv", folder / "splits.tsv")


def test_covariates_reach_the_models_through_files_filters_splits_and_genes(tmp_path):
    adata = make(
        n_empty=4,
        donor=list("ab") * 30,
        sex=list("ffmm") * 14 + ["rare"] * 4,
        age=range(60),
        other=["x", None] * 30,
    )
    counts = load(
        save(adata, tmp_path / "a.h5ad"),
        batch="donor",
        categorical_covariates=["sex"],
        continuous_covariates=["pct_counts_mt", "age", "total_counts"],
    )
    assert counts.table.uns["covariates"] == {
        "categorical": ["sex"],
        "continuous": ["pct_counts_mt", "age", "total_counts"],
    }
    assert set(counts.obs["sex"].cat.categories) == {"f", "m", "rare"}
    cells = through(tmp_path, counts)
    assert names_of(cells) == (["sex"], ["pct_counts_mt", "age", "total_counts"])
    assert cells.X.shape == (56, 5)
    assert list(cells.obs["sex"]) == list("ffmm") * 14
    assert list(cells.obs["sex"].cat.categories) == ["f", "m"]
    assert list(cells.obs["age"]) == list(range(56))
    for column in names_of(cells)[1]:
        assert cells.obs[column].dtype == np.float64
        assert np.isfinite(cells.obs[column]).all()
    np.testing.assert_array_equal(cells.obs["total_counts"], adata.X[:56].sum(axis=1).A1)
    np.testing.assert_allclose(
        cells.obs["pct_counts_mt"],
        100 * adata[:56, "MT-CO1"].X.toarray().ravel() / cells.obs["total_counts"],
    )


@pytest.mark.parametrize("entry", [{}, {"categorical_covariates": ["sex"]}])
def test_both_lists_are_there_whatever_the_dataset_names(entry, tmp_path):
    cells = through(tmp_path, load(save(make(sex=list("fm") * 30), tmp_path / "a.h5ad"), **entry))
    assert set(cells.uns["covariates"]) == {"categorical", "continuous"}
    assert names_of(cells) == (entry.get("categorical_covariates", []), [])


def test_a_metric_is_the_workflows_own_and_the_files_column_is_kept_aside(tmp_path, capsys):
    adata = make(
        pct_counts_mt=[50.0] * 60, total_counts=["many"] * 60, original_total_counts=[1] * 60
    )
    counts = load(save(adata, tmp_path / "a.h5ad"), continuous_covariates=["pct_counts_mt"])
    obs = through(tmp_path, counts).obs
    assert obs["pct_counts_mt"].max() < 50
    assert set(obs["original_pct_counts_mt"]) == {50.0}
    assert set(obs["original_total_counts"]) == {1}
    assert set(obs["original_original_total_counts"]) == {"many"}
    said = "the column 'pct_counts_mt' that came with the data is kept as 'original_pct_counts_mt'"
    assert said in capsys.readouterr().out


def test_metrics_that_say_nothing_are_refused_together(tmp_path):
    adata = make()[:, :20].copy()
    metrics = ["pct_counts_mt", "doublet_score", "total_counts"]
    counts = load(save(adata, tmp_path / "a.h5ad"), continuous_covariates=metrics)
    with pytest.raises(InputError) as caught:
        through(tmp_path, counts)
    assert len(caught.value.problems) == 2
    assert "'pct_counts_mt' is 0 in every kept cell. Fix: leave" in caught.value.problems[0]
    assert "60 of 60 kept cells have no 'doublet_score'" in caught.value.problems[1]
    assert "qc.doublets: true" in caught.value.problems[1]


def test_the_metrics_are_those_that_quality_control_writes(tmp_path):
    counts = load(save(make(), tmp_path / "a.h5ad"))
    cells = filter_cells(counts, WIDE).cells
    assert set(cells.obs) - set(counts.obs) == set(QC_METRICS)
    assert cells.obs["total_counts"].dtype.kind == "i"


def test_a_covariate_that_filtering_leaves_with_one_value_stays_with_a_warning(tmp_path, capsys):
    adata = make(n_empty=4, sex=["f"] * 56 + ["m"] * 4, age=[30] * 56 + [40] * 4)
    entry = {"categorical_covariates": ["sex"], "continuous_covariates": ["age"]}
    cells = through(tmp_path, load(save(adata, tmp_path / "a.h5ad"), **entry))
    assert list(cells.obs["sex"].cat.categories) == ["f"]
    assert set(cells.obs["age"]) == {30.0}
    out = capsys.readouterr().out
    assert "WARNING covariate sex is f in every kept cell" in out
    assert "WARNING covariate age is 30.0 in every kept cell" in out


def test_covariates_of_samples_lie_in_each_of_them_or_in_the_annotations(tmp_path):
    samples = {
        "one": save(make(30, 1, sex=list("fm") * 15, age=range(30)), tmp_path / "1.h5ad"),
        "two": save(make(30, 2, sex=list("mf") * 15), tmp_path / "2.h5ad"),
    }
    entry = {"categorical_covariates": ["sex"], "continuous_covariates": ["age"]}
    with pytest.raises(InputError) as caught:
        load(samples, **entry)
    assert len(caught.value.problems) == 1
    said = "30 of 60 cells have no 'age', such as two_cell0; samples without any: two. Fix: fill"
    assert said in caught.value.problems[0]
    rows = [f"{sample}_cell{i},{i + 0.5}" for sample in samples for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["cell,age", *rows]))
    cells = through(tmp_path, load(samples, annotations=str(tmp_path / "a.csv"), **entry))
    assert list(cells.obs["sex"]) == list("fm") * 15 + list("mf") * 15
    assert list(cells.obs["age"]) == [i + 0.5 for i in range(30)] * 2


def test_the_sample_may_be_a_covariate_where_another_column_is_the_batch(tmp_path):
    samples = {
        name: save(make(30, seed, lane=list("12") * 15), tmp_path / f"{name}.h5ad")
        for seed, name in enumerate(["one", "two"])
    }
    counts = load(samples, batch="lane", categorical_covariates=["source_sample"])
    assert list(counts.obs["source_sample"].cat.categories) == ["one", "two"]
    with pytest.raises(InputError, match="is the batch under other names"):
        load(samples, categorical_covariates=["source_sample"])


def test_all_problems_of_counts_columns_and_covariates_are_raised_at_once(tmp_path):
    adata = make(donor=list("ab") * 30, sex=["f", None] * 30, age=["x"] * 60)
    adata.X = adata.X.astype(np.float32)
    adata.X.data[0] = 0.5
    with pytest.raises(InputError) as caught:
        load(
            save(adata, tmp_path / "a.h5ad"),
            batch="doner",
            categorical_covariates=["sex", "none"],
            continuous_covariates=["age"],
        )
    text = "\n".join(caught.value.problems)
    for words in ("not whole", "'donor'", "no 'sex'", "'none' is no", "60 of 60 values of 'age'"):
        assert words in text
    assert len(caught.value.problems) == 5


def test_a_column_of_any_name_can_be_a_covariate(tmp_path):
    adata = make(**{"self": list("fm") * 30, "Säx (m)": range(60)})
    entry = {"categorical_covariates": ["self"], "continuous_covariates": ["Säx (m)"]}
    cells = through(tmp_path, load(save(adata, tmp_path / "a.h5ad"), **entry))
    assert names_of(cells) == (["self"], ["Säx (m)"])


def test_the_planted_covariate_of_the_simulator_is_one_like_any_other(tmp_path):
    planted = simulate(Simulation(n_cells=300, n_genes=200, covariate_strength=0.5))
    entry = {"source": "simulate", "categorical_covariates": ["protocol"]}
    counts = load(save(planted, tmp_path / "a.h5ad"), **entry)
    cells = through(tmp_path, counts, Filters(doublets=False))
    assert names_of(cells) == (["protocol"], [])
    assert list(cells.obs["protocol"].cat.categories) == ["protocol1", "protocol2"]
    stored = read_cells(tmp_path / "cells.h5ad")
    assert stored.varm["true_covariate_effect"].shape == (stored.n_vars, 2)
    for leaking in ("true_cell_type", "cell_type", "batch"):
        with pytest.raises(InputError, match=f"'{leaking}'"):
            load(str(tmp_path / "a.h5ad"), **entry | {"categorical_covariates": [leaking]})
