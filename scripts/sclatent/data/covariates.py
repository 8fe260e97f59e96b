"""The covariates of a dataset: columns of obs that a count model may know beside the batch.

They keep their names. As in the contract for counts, problems are added to a list so that one pass
finds them all. What quality control measures is known only after it and is checked there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclatent.data.columns import LIKE_UNKNOWN, SAMPLE, as_text
from sclatent.data.settings import Entry
from sclatent.data.store import QC_METRICS, UNKNOWN, covariates
from sclatent.errors import InputError, nearest, problem

if TYPE_CHECKING:
    from anndata import AnnData

CATEGORICAL, CONTINUOUS = "categorical_covariates", "continuous_covariates"
OWN = ("batch", "cell_type", "cells_split", "labels_split")
MOST = 0.5  # categories per cell; a column with more names cells and does not group them
LARGEST = float(np.finfo(np.float32).max)  # a model computes in float32


def names_in(entry: Entry) -> dict[str, list[str]]:
    """Return the names of the covariates as uns["covariates"] of a dataset holds them."""
    return {
        "categorical": list(entry.categorical_covariates),
        "continuous": list(entry.continuous_covariates),
    }


def read_covariates(
    obs: pd.DataFrame,
    batch: pd.Series,
    labels: pd.Series,
    entry: Entry,
    name: str,
    problems: list[str],
) -> dict[str, pd.Series | pd.Categorical]:
    """Read the columns of the covariates, and find what no model could use.

    Parameters
    ----------
    obs
        The cells kept (B rows) with their own columns.
    batch, labels
        Batch and label of each cell (B,), `UNKNOWN` where it has no label.
    entry, name
        The dataset's config and name.
    problems
        Problems found are added.

    Returns
    -------
    dict
        By column, categories of text or float64 values, each (B,). Metrics of quality control are
        not among them, nor are columns that cannot be read.
    """
    lists = {CATEGORICAL: entry.categorical_covariates, CONTINUOUS: entry.continuous_covariates}
    found = {}
    for key, names in lists.items():
        where = f"dataset {name}: {key}"
        for column in names:
            if key == CONTINUOUS and column in (*QC_METRICS, *entry.categorical_covariates):
                continue
            wrong = misnamed(obs, column, key, entry)
            if wrong:
                code, what, fix = wrong
                problems.append(problem(code, where, what, fix))
                continue
            read = read_categories if key == CATEGORICAL else read_numbers
            found[column] = read(obs, column, where, problems)
            if key == CATEGORICAL:
                check_batch_not_repeated(obs[column], batch, where, problems)
            check_labels_hidden(obs[column], labels, where, problems)
    return found


def misnamed(obs, column: str, key: str, entry: Entry) -> tuple[str, str, str] | None:
    """Return code, fault and fix of a covariate's name; None where it is a column."""
    if key == CATEGORICAL and column in entry.continuous_covariates:
        return "E215", f"'{column}' is also in {CONTINUOUS}", "leave it in one of them"
    if column in QC_METRICS:
        return "E215", f"'{column}' is a number of quality control", f"name it in {CONTINUOUS}"
    if column == entry.batch:
        return "E215", f"'{column}' is the batch, which the models know already", "leave it out"
    if column == entry.cell_type:
        what = f"'{column}' is the cell_type, which is partly hidden from models"
        return "E215", what, "leave it out"
    if column in OWN:
        fix = "give your column another name, in the file or in annotations"
        return "E215", f"'{column}' is a column that the workflow writes itself", fix
    if column not in obs:
        there = [name for name in obs if name not in (entry.batch, entry.cell_type)]
        there += QC_METRICS if key == CONTINUOUS else ()
        return "E201", f"'{column}' is no column of obs", f"name a column; {nearest(column, there)}"
    return None


def read_categories(
    obs: pd.DataFrame, column: str, where: str, problems: list[str]
) -> pd.Categorical:
    """Return a column as categories of text (B,); add what is wrong with it."""
    values = as_text(obs[column])
    check_missing(obs, column, values.isna(), where, problems)
    sizes = values.value_counts()
    if len(sizes) > MOST * len(values):
        what = f"'{column}' has {len(sizes):,} values in {len(values):,} cells, "
        what += f"such as {sizes.index[0]}: it names cells and does not group them"
        problems.append(problem("E217", where, what, f"leave '{column}' out"))
    elif len(sizes) == 1:
        print(f"WARNING {where}: '{column}' is {sizes.index[0]} everywhere: models ignore it")
    for value in filter(LIKE_UNKNOWN.match, sizes.index):
        print(f"WARNING '{value}' ({sizes[value]:,} cells) counts as a value of {column}")
    return pd.Categorical(values)


def read_numbers(obs: pd.DataFrame, column: str, where: str, problems: list[str]) -> pd.Series:
    """Return a column as float64 (B,); add what is wrong with it."""
    values = obs[column]
    missing = values.isna() | (values.astype(object) == "")
    check_missing(obs, column, missing, where, problems)
    numbers = to_numbers(values)
    large = numbers.abs() > LARGEST
    kinds = {"are not numbers": numbers.isna() & ~missing, "are infinite or too large": large}
    for kind, bad in kinds.items():
        if bad.any():
            example = f"{values[bad].iloc[0]} for cell {values.index[bad][0]}"
            what = f"{bad.sum():,} of {len(bad):,} values of '{column}' {kind}, such as {example}"
            problems.append(problem("E218", where, what, f"correct them, or leave '{column}' out"))
    good = numbers[numbers.notna() & ~large]
    if good.nunique() == 1:
        what = f"'{column}' is {good.iloc[0]:.6g} in every cell"
        problems.append(problem("E219", where, what, f"leave '{column}' out"))
    return numbers


def to_numbers(column: pd.Series) -> pd.Series:
    """Return a column of any type as float64; NaN where a value is no number."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.astype(np.float64)
    numbers = {value: number(value) for value in column.dropna().unique()}
    return column.astype(object).map(numbers).astype(np.float64)


def number(value) -> float:
    """Return one value as a number; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def check_missing(obs, column: str, missing: pd.Series, where: str, problems: list[str]) -> None:
    """Find cells without a value, and samples without any."""
    if not missing.any():
        return
    what = f"{missing.sum():,} of {len(missing):,} cells have no '{column}', "
    what += f"such as {missing.index[missing][0]}"
    if SAMPLE in obs:
        without = missing.groupby(obs[SAMPLE].astype(str).to_numpy()).all()
        listed = ", ".join(without.index[without])
        what += f"; samples without any: {listed}" if listed else ""
    fix = f"fill the column, in the file or in annotations, or leave '{column}' out"
    problems.append(problem("E216", where, what, fix))


def check_batch_not_repeated(
    column: pd.Series, batch: pd.Series, where: str, problems: list[str]
) -> None:
    """Refuse a covariate that is the batch under other names."""
    values = as_text(column)
    if values.nunique() < 2 or not determines(batch, values):
        return
    if not determines(values, batch):
        print(
            f"WARNING {where}: '{column.name}' has one value in each batch, which tells it already"
        )
        return
    example = f"{values.dropna().iloc[0]} is batch {batch[values.notna()].iloc[0]}"
    what = f"'{column.name}' is the batch under other names ({example}), which the models know"
    problems.append(problem("E220", where, what, f"leave '{column.name}' out"))


def determines(values: pd.Series, others: pd.Series) -> bool:
    """Say whether cells that share a value also share the other; missing ones say nothing."""
    table = pd.DataFrame({"value": as_text(values), "other": as_text(others)}).dropna()
    return len(table.drop_duplicates()) == table["value"].nunique()


def check_labels_hidden(
    column: pd.Series, labels: pd.Series, where: str, problems: list[str]
) -> None:
    """Refuse a covariate that tells the label: models would be told what judges them."""
    known = labels != UNKNOWN
    values, labels = column[known], labels[known]
    groups = values.nunique() <= MOST * len(values)
    if groups and labels.nunique() > 1 and determines(values, labels):
        what = f"each value of '{column.name}' has one cell_type only, so it tells hidden labels"
        problems.append(problem("E221", where, what, f"leave '{column.name}' out"))


def check_kept(cells: AnnData) -> None:
    """Check the covariates of the cells that quality control keeps.

    Its own metrics become float64 where they are covariates. Other columns that are left with one
    value only stay; the models ignore them.

    Raises
    ------
    InputError
        When a metric named as a covariate has missing values or is the same in every cell.
    """
    categorical, continuous = covariates(cells)
    problems: list[str] = []
    for column in continuous:
        if column in QC_METRICS:
            cells.obs[column] = cells.obs[column].astype(np.float64)
            values, fix = cells.obs[column], f"leave '{column}' out"
            if values.isna().any():
                what = f"{values.isna().sum():,} of {len(values):,} kept cells have no '{column}'"
                fix += ", or set qc.doublets: true where it is false"
                problems.append(problem("E216", CONTINUOUS, what, fix))
            elif values.nunique() == 1:
                what = f"'{column}' is {values.iloc[0]:.6g} in every kept cell"
                problems.append(problem("E219", CONTINUOUS, what, fix))
    if problems:
        raise InputError(*problems)
    for column in (*categorical, *continuous):
        if cells.obs[column].nunique() == 1:
            value = cells.obs[column].iloc[0]
            print(f"WARNING covariate {column} is {value} in every kept cell: models ignore it")
