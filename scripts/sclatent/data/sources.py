"""Read a dataset of the config, wherever it comes from, and check it: the one reader."""

import tempfile
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from sclatent import files
from sclatent.data import columns, contract, covariates, store
from sclatent.data.archives import extract, find_samples, is_archive
from sclatent.data.blocks import Dataset, row_sizes, stack, write_dataset
from sclatent.data.content import Content
from sclatent.data.copies import Copies
from sclatent.data.embedded import PREFIX, read_embedded
from sclatent.data.formats import read_content
from sclatent.data.names import kind, unlike
from sclatent.data.settings import Entry, Limits
from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError, problem

SHARED_GENES = 0.8


@dataclass
class Rejected:
    """A sample whose counts are refused; its columns are still checked."""

    obs: pd.DataFrame


def read_dataset(name: str, entry: Entry, samples: dict[str, str], limits: Limits) -> Dataset:
    """Read all samples of a dataset as raw counts with `batch` and `cell_type`.

    Parameters
    ----------
    name
        The dataset, for messages and as the batch where there is only one.
    entry
        Its config.
    samples
        Path of each sample, or ``scanpy:pbmc68k_reduced``. An archive may hold several.
    limits
        What is asked of the batches.

    Returns
    -------
    Dataset
        Counts (n_cells, n_genes), int32 in canonical form, read when they are written; obs with the
        categories `batch` and `cell_type` and the columns of the covariates; their names in
        uns["covariates"], as `store.covariates` reads them; cells in the order of the files.

    Raises
    ------
    InputError
        With every problem found.
    """
    problems: list[str] = []
    parts = read_samples(samples, entry, problems)
    obs = join_obs({sample: part.obs for sample, part in parts.items()})
    # Also of a sample whose counts are refused the columns are checked: one pass finds it all.
    kept, obs = name_cells(obs, complete(entry, obs), limits, name, problems)
    if problems:
        raise InputError(*problems)
    joined = join_counts(parts, name)
    table = joined.table[kept].copy()
    table.obs = obs
    table.uns["covariates"] = covariates.names_in(entry)
    report(table)
    return Dataset(table, joined.counts.keep(kept))


def read_samples(samples: dict[str, str], entry: Entry, problems: list[str]) -> dict:
    """Return {sample: Dataset, or `Rejected`} of all paths, and add the problems of each."""
    parts = {}
    for sample, path in samples.items():
        try:
            found = read_sample(sample, path, entry, problems)
        except InputError as error:  # the other samples are read all the same
            problems.extend(error.problems)
            continue
        for part, dataset in found.items():
            # Samples of two archives may have the same name.
            parts[f"{sample}_{part}" if part in parts else part] = dataset
    if not parts:
        raise InputError(*problems)
    return parts


def read_sample(sample: str, path: str, entry: Entry, problems: list[str]) -> dict:
    """Return {sample: Dataset} of one path: one sample, or those of an archive."""
    if path.startswith(PREFIX):
        return check_sample(sample, read_embedded(path), entry, problems)
    files.verified(path)
    if not is_archive(path):
        return check_sample(sample, read_content(path, entry), entry, problems)
    with tempfile.TemporaryDirectory() as folder:
        extract(path, folder)
        found = find_samples(folder)
        if not found:
            fix = "put a folder with matrix.mtx, barcodes.tsv and features.tsv into it"
            raise InputError(problem("E314", path, "holds no 10x matrix", fix))
        parts = {}
        for part, place in found.items():
            content = replace(read_content(place, entry), where=f"{path}: {part}")
            key = sample if len(found) == 1 else part
            parts |= check_sample(key, content, entry, problems)
        return parts


def check_sample(sample: str, content: Content, entry: Entry, problems: list[str]) -> dict:
    """Return {sample: Dataset} of one sample, with obs only where it breaks the contract."""
    import anndata

    n_before = len(problems)
    obs = content.obs.set_axis(content.obs.index.astype(str).rename(None))
    contract.check_barcodes(obs.index, content.where, problems)
    counts, var = contract.choose_counts(content, entry.layer, problems)
    if var is not None:
        contract.check_orientation(obs, var, content.where, problems)
        var = contract.name_genes(var, content.where, problems)
    if len(problems) > n_before:
        return {sample: Rejected(obs)}
    print(f"{content.where}: {counts.shape[0]:,} cells x {counts.shape[1]:,} genes")
    varm = {key: value for key, value in content.varm.items() if len(value) == len(var)}
    table = anndata.AnnData(obs=obs, var=var, obsm=content.obsm, varm=varm)
    return {sample: Dataset(table, counts)}


def join_obs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return obs of all samples; the cells of several are named ``sample_barcode``."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    joined = []
    for sample, table in tables.items():
        table = table.assign(**{columns.SAMPLE: sample, columns.BARCODE: table.index})
        table = table.set_axis(f"{sample}_" + table.index)
        for column in table.select_dtypes("category").columns:
            table[column] = table[column].astype(object)
        joined.append(table)
    return pd.concat(joined)


def join_counts(parts: dict[str, Dataset], name: str) -> Dataset:
    """Return one dataset of several on the genes they share, without their obs.

    Raises
    ------
    InputError
        When a sample shares less than 80 % of its genes with all others.
    """
    import anndata

    if len(parts) == 1:
        return next(iter(parts.values()))
    genes = {sample: part.table.var_names for sample, part in parts.items()}
    shared = shared_genes(genes, name)
    counts = stack(
        [part.counts.keep(genes=genes[key].get_indexer(shared)) for key, part in parts.items()]
    )
    first = next(iter(parts.values())).table
    obs = pd.DataFrame(index=[str(cell) for cell in range(counts.shape[0])])
    return Dataset(anndata.AnnData(obs=obs, var=first.var.loc[shared]), counts)


def shared_genes(genes: dict[str, pd.Index], name: str) -> pd.Index:
    """Return the genes that all samples have, in the order of the first.

    Genes that one sample lacks are dropped: a union would invent zeros for it.
    """
    indices = list(genes.values())
    shared = indices[0]
    for index in indices[1:]:
        shared = shared[shared.isin(index)]
    few = {
        sample: index for sample, index in genes.items() if len(shared) < SHARED_GENES * len(index)
    }
    if few:
        listed = "; ".join(
            f"{sample} {len(index):,} {kind(index)} such as {index[0]}"
            for sample, index in genes.items()
        )
        what = f"the samples share only {len(shared):,} genes ({listed})"
        raise InputError(problem("E234", f"dataset {name}", what, unlike(genes)))
    dropped = len(set().union(*indices)) - len(shared)
    print(f"{len(genes)} samples share {len(shared):,} genes; {dropped:,} others are dropped")
    return shared


def complete(entry: Entry, obs: pd.DataFrame) -> Entry:
    """Return the entry with the columns that the simulator always writes."""
    if entry.source != "simulate":
        return entry
    unknown = UNKNOWN if (obs["cell_type"] == UNKNOWN).any() else None
    return replace(entry, batch="batch", cell_type="cell_type", unknown=unknown)


def name_cells(
    obs: pd.DataFrame, entry: Entry, limits: Limits, name: str, problems: list[str]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return which cells to keep, and their obs with `batch`, `cell_type` and covariates."""
    if entry.annotations:
        obs = columns.join_annotations(obs, entry.annotations, problems)
    kept = columns.kept_cells(obs, entry, name, problems)
    if not kept.any():
        raise InputError(
            *problems, problem("E209", f"dataset {name}", "keep leaves no cell", "widen keep")
        )
    obs = obs[kept]
    batch = columns.name_batches(obs, entry, name, problems)
    labels = columns.name_labels(obs, entry, name, problems)
    batch, large = columns.treat_small_batches(batch, limits, name, problems)
    obs, batch, labels = obs[large], batch[large], labels[large]
    columns.check_labels(labels, batch, entry, name, problems)
    columns.warn_confounded(labels, batch)
    found = covariates.read_covariates(obs, batch, labels, entry, name, problems)
    kept[kept] = large
    obs = columns.rename_columns(obs, entry, batch, labels)
    for column, values in found.items():
        obs[column] = values
    return kept, obs


def report(table) -> None:
    """Print what was read of the cells in numbers."""
    categorical, continuous = store.covariates(table)
    for column in ("batch", "cell_type", *categorical):
        sizes = table.obs[column].value_counts().sort_index()
        print(f"{column}: {', '.join(f'{key} {size:,}' for key, size in sizes.items())}")
    for column in (column for column in continuous if column not in store.QC_METRICS):
        print(f"{column}: {table.obs[column].min():.6g} to {table.obs[column].max():.6g}")


def write_counts(path, dataset: Dataset) -> None:
    """Write what `read_dataset` read, print how many counts there are, and warn of equal cells."""
    copies = Copies(dataset.counts.shape[1])
    counts = dataset.counts.map(copies.look, dataset.counts.dtype)
    write_dataset(path, replace(dataset, counts=counts))
    copies.report(dataset.table.obs_names)
    sizes = row_sizes(path)
    empty = int(np.count_nonzero(sizes == 0))
    if empty:
        print(f"WARNING {empty:,} cells have no counts at all; quality control removes them")
    n_cells, n_genes = dataset.counts.shape
    print(f"{n_cells:,} cells x {n_genes:,} genes, {sizes.sum():,} counts above zero")
