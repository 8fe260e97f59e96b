"""The columns of obs: which cells to keep, their batch, and their label.

The dataset's own columns are renamed once, here, to `batch` and `cell_type`. As in the contract
for counts, problems are added to a list so that one pass finds them all.
"""

import re

import numpy as np
import pandas as pd

from sclatent.data.content import readable
from sclatent.data.market import check_unpacked, opened
from sclatent.data.settings import Entry, Limits
from sclatent.data.store import UNKNOWN
from sclatent.errors import nearest, problem

LIKE_UNKNOWN = re.compile(r"^(unknown|na|n/a|nan|none|unassigned|unlabell?ed)$", re.IGNORECASE)
DECIMAL = re.compile(r"^-?\d+\.0+$")
MERGED = "merged"
SAMPLE, BARCODE = "source_sample", "source_barcode"  # of datasets with several samples


def as_text(column: pd.Series) -> pd.Series:
    """Return a column as text, missing where the value is missing or empty.

    Whole numbers lose their decimal point, so that 1, 1.0 and True of different files or types
    are the categories "1", "1" and "True".
    """
    words = {value: word(value) for value in column.dropna().unique()}
    return column.astype(object).map(words).where(column.notna(), None).astype(object)


def word(value) -> str | None:
    """Return one value as text; None for an empty one."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value) or None


def find_column(obs: pd.DataFrame, key: str, column: str, name: str, problems: list[str]) -> bool:
    """Say whether a column that the config names is there; add a problem when it is not."""
    if column in obs:
        return True
    what = f"{key} is '{column}', but obs has no such column"
    problems.append(
        problem("E201", f"dataset {name}", what, f"correct {key}; {nearest(column, obs)}")
    )
    return False


def join_annotations(obs: pd.DataFrame, path: str, problems: list[str]) -> pd.DataFrame:
    """Add the columns of a table to obs.

    Parameters
    ----------
    obs
        Index the cell names; with several samples, the column `BARCODE` holds those of the files.
    path
        A csv or tsv table, plain or gzipped; its first column is the cell, by name or barcode.
    """
    with readable(path):
        check_unpacked(path)
        with opened(path) as file:
            table = pd.read_csv(
                file,
                sep=None,
                engine="python",
                keep_default_na=False,
                na_values=[""],
                encoding="utf-8-sig",
                converters={0: str},
            )
    table = table.set_index(table.columns[0])
    if not table.index.is_unique:
        cell = table.index[table.index.duplicated()][0]
        what = f"a cell occurs more than once, such as {cell}"
        problems.append(problem("E210", path, what, "give each cell one row"))
        return obs
    keys = obs.index
    if BARCODE in obs and obs[BARCODE].is_unique and not keys.isin(table.index).any():
        keys = pd.Index(obs[BARCODE])
    found = keys.isin(table.index)
    if not found.any():
        what = f"none of its {len(table):,} cells, such as {table.index[0]}, is in the dataset"
        problems.append(
            problem("E211", path, what, f"name cells as in the dataset, such as {keys[0]}")
        )
        return obs
    print(f"{path}: annotates {found.sum():,} of {len(obs):,} cells with {', '.join(table)}")
    table = table.reindex(keys).set_axis(obs.index)
    return pd.concat([obs.drop(columns=obs.columns.intersection(table.columns)), table], axis=1)


def kept_cells(obs: pd.DataFrame, entry: Entry, name: str, problems: list[str]) -> np.ndarray:
    """Return which cells the config keeps."""
    kept = np.ones(len(obs), bool)
    for column, values in entry.keep.items():
        if not find_column(obs, f"keep.{column}", column, name, problems):
            continue
        texts = as_text(obs[column])
        for value in (word(value) for value in values):
            if value not in set(texts):
                fix = f"correct it; {nearest(value, sorted(set(texts.dropna())))}"
                what = f"keep.{column} has '{value}', which no cell has"
                problems.append(problem("E208", f"dataset {name}", what, fix))
        kept &= texts.isin([word(value) for value in values]).to_numpy()
        print(f"keep {column}: {kept.sum():,} of {len(obs):,} cells")
    return kept


def name_batches(obs: pd.DataFrame, entry: Entry, name: str, problems: list[str]) -> pd.Series:
    """Return the batch of each cell: the configured column, else the sample, else the dataset."""
    if entry.batch is None:
        return obs[SAMPLE] if SAMPLE in obs else pd.Series(name, index=obs.index)
    if not find_column(obs, "batch", entry.batch, name, problems):
        return pd.Series(name, index=obs.index)
    batch = as_text(obs[entry.batch])
    if batch.isna().any():
        cell = batch.index[batch.isna()][0]
        what = f"{batch.isna().sum():,} of {len(batch):,} cells have no {entry.batch}: {cell}"
        fix = "fill the column, or leave the cells out with keep"
        problems.append(problem("E202", f"dataset {name}", what, fix))
    # what is missing is said once, and not again as a batch that is too small
    return merge_decimals(batch).ffill().bfill().fillna("missing")


def merge_decimals(batch: pd.Series) -> pd.Series:
    """Return batches with '1.0' called '1' where both are there.

    A file that passed through a table of floats, or one with text, has the other form.
    """
    there = set(batch.dropna())
    renamed = {key: key.split(".")[0] for key in there if DECIMAL.match(key)}
    renamed = {key: value for key, value in sorted(renamed.items()) if value in there}
    for key, value in renamed.items():
        print(f"WARNING batches '{value}' and '{key}' are taken for one, '{value}'")
    return batch.replace(renamed)


def treat_small_batches(
    batch: pd.Series, limits: Limits, name: str, problems: list[str]
) -> tuple[pd.Series, np.ndarray]:
    """Refuse, drop or merge batches with too few cells.

    Merged they become one batch or, where they still have too few cells together, join the smallest
    of the others.

    Returns
    -------
    batch : pandas.Series
        With the small ones renamed where they are merged.
    kept : array of bool
        Which cells stay.
    """
    sizes = batch.value_counts().sort_index()
    small = sizes[sizes < limits.min_cells_per_batch]
    kept = np.ones(len(batch), bool)
    if small.empty:
        return batch, kept
    listed = ", ".join(f"{key} ({size:,})" for key, size in small.items())
    count = f"{len(small):,} of {len(sizes):,} batches have fewer than {limits.min_cells_per_batch}"
    large, enough = sizes.drop(small.index), small.sum() >= limits.min_cells_per_batch
    if limits.small_batches == "merge" and (enough or len(large)):
        into = MERGED if enough else large.idxmin()
        done = "become one batch" if enough else "join the smallest of the others,"
        print(f"WARNING {count} cells and {done} '{into}': {listed}")
        return batch.where(~batch.isin(small.index), into), kept
    if limits.small_batches == "drop" and len(small) < len(sizes):
        print(f"WARNING {count} cells and are dropped with {small.sum():,} cells: {listed}")
        return batch, ~batch.isin(small.index).to_numpy()
    lower = "lower input.min_cells_per_batch"
    if len(large):
        fix = f"set input.small_batches to drop or merge, or {lower}"
    else:
        fix = (
            f"set input.small_batches to merge, or {lower}" if enough else f"{lower}, or add cells"
        )
    problems.append(problem("E203", f"dataset {name}", f"{count} cells: {listed}", fix))
    return batch, kept


def name_labels(obs: pd.DataFrame, entry: Entry, name: str, problems: list[str]) -> pd.Series:
    """Return the label of each cell, `UNKNOWN` for those that have none."""
    blank = pd.Series(UNKNOWN, index=obs.index, dtype=object)
    if entry.cell_type is None:
        return blank
    if not find_column(obs, "cell_type", entry.cell_type, name, problems):
        return blank
    labels = as_text(obs[entry.cell_type])
    if labels.isna().any():
        print(f"{labels.isna().sum():,} cells have no value in {entry.cell_type}: not labelled")
    labels = labels.fillna(UNKNOWN)
    there = sorted(set(labels))
    if entry.unknown is not None and entry.unknown not in there:
        what = f"unknown is '{entry.unknown}', which is no value of {entry.cell_type}"
        fix = f"correct or remove unknown; {nearest(entry.unknown, there)}"
        problems.append(problem("E205", f"dataset {name}", what, fix))
    for label in there:
        if LIKE_UNKNOWN.match(label) and label not in (entry.unknown, UNKNOWN):
            n_cells = (labels == label).sum()
            print(f"WARNING '{label}' ({n_cells:,} cells) counts as a cell type; set unknown?")
    if entry.unknown != UNKNOWN and (obs[entry.cell_type].astype(str) == UNKNOWN).any():
        print(f"WARNING cells labelled '{UNKNOWN}' count as not labelled; set unknown: {UNKNOWN}")
    return labels.where(labels != entry.unknown, UNKNOWN)


def check_labels(
    labels: pd.Series, batch: pd.Series, entry: Entry, name: str, problems: list[str]
) -> None:
    """Find hidden batches that do not exist or hold all labels; warn where there is no label."""
    batches = sorted(set(batch))
    for hidden in entry.hidden_batches:
        if hidden not in batches:
            fix = f"correct hidden_batches; {nearest(hidden, batches)}"
            what = f"there is no batch '{hidden}' to hide"
            problems.append(problem("E204", f"dataset {name}", what, fix))
    if entry.cell_type is None:
        return
    labelled = labels != UNKNOWN
    if not labelled.any():
        print(
            f"WARNING 0 of {len(labels):,} cells have a label in {entry.cell_type}: all goes on "
            "without labels, but for latents that need them, such as scanvi, which fail"
        )
    elif batch[labelled].isin(entry.hidden_batches).all():
        what = f"0 of {len(labels):,} cells are labelled outside the hidden batches"
        fix = "correct unknown or hidden_batches, or leave cell_type out"
        problems.append(problem("E206", f"dataset {name}", what, fix))


def warn_confounded(labels: pd.Series, batch: pd.Series) -> None:
    """Warn of labels that occur in one of several batches only."""
    pairs = pd.DataFrame({"label": labels.to_numpy(), "batch": batch.to_numpy()})
    n_batches = pairs[pairs["label"] != UNKNOWN].groupby("label")["batch"].nunique()
    alone = n_batches.index[n_batches == 1]
    if batch.nunique() < 2 or not len(alone):
        return
    if len(alone) == len(n_batches):
        print(
            "WARNING no cell type is in two batches: what is type and what is batch cannot be told "
            "apart, so the mixing of batches is not measured and a correction may remove types"
        )
        return
    listed = ", ".join(alone[:10]) + (", ..." if len(alone) > 10 else "")
    print(
        f"WARNING {len(alone):,} of {len(n_batches):,} cell types are in one batch only "
        f"(confounded with it): {listed}"
    )


def rename_columns(obs: pd.DataFrame, entry: Entry, batch, labels) -> pd.DataFrame:
    """Return obs with `batch` and `cell_type`; other columns of these names are kept aside."""
    configured = {"batch": entry.batch, "cell_type": entry.cell_type}
    obs = set_aside(obs, [column for column, given in configured.items() if given != column])
    obs["batch"], obs["cell_type"] = pd.Categorical(batch), pd.Categorical(labels)
    for column in obs.select_dtypes("category").columns:
        obs[column] = obs[column].cat.remove_unused_categories()
    for column in obs.select_dtypes("object").columns:
        obs[column] = pd.Categorical(as_text(obs[column]))
    return obs


def set_aside(obs: pd.DataFrame, names) -> pd.DataFrame:
    """Return obs with its columns of these names called `original_<name>`, and say so."""
    renamed = {}
    for column in (name for name in names if name in obs):
        renamed[column] = f"original_{column}"
        while renamed[column] in obs:
            renamed[column] = f"original_{renamed[column]}"
        print(f"the column '{column}' that came with the data is kept as '{renamed[column]}'")
    return obs.rename(columns=renamed)
