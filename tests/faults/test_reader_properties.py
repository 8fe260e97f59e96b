"""The same counts give the same dataset in whatever file they come, or an InputError."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import io, sparse

from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset
from sclatent.errors import InputError

BOUNDED = settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
COUNTS = st.tuples(st.integers(2, 6), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 0, 1, 2, 255]))
)
TYPES = st.sampled_from(["int32", "int64", "uint8", "uint16", "float32", "float64"])


def read(path):
    """Read one file, and return its names and counts."""
    entry = Entry(source=str(path))
    found = read_dataset("mine", entry, {"mine": str(path)}, Limits(1, "keep")).to_anndata()
    matrix = found.X
    assert matrix.dtype == np.int32
    assert matrix.has_canonical_format
    assert (matrix.data > 0).all()
    return list(found.obs_names), list(found.var_names), matrix.toarray()


def names(counts):
    """Return names of cells and of genes."""
    return [f"cell{i}" for i in range(len(counts))], [f"G{i}" for i in range(counts.shape[1])]


def disorder(counts, random):
    """Return counts as CSR with unsorted and repeated indices and zeros that are stored."""
    data, indices, indptr = [], [], [0]
    for row in counts:
        places = random.permutation(len(row))
        values = [(place, row[place]) for place in places]
        values += [(place, 0) for place in places[:1]]
        split = [(place, value - 1) for place, value in values if value > 1]
        values = [(place, min(value, 1)) for place, value in values] + split
        indices += [place for place, _ in values]
        data += [value for _, value in values]
        indptr.append(len(data))
    return sparse.csr_matrix((data, indices, indptr), shape=counts.shape)


@BOUNDED
@given(COUNTS, TYPES, st.sampled_from(["dense", "csr", "csc", "disorder"]), st.integers(0, 9))
def test_an_h5ad_of_any_layout_and_type_gives_the_same_counts(
    tmp_path, counts, dtype, layout, seed
):
    forms = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    random = np.random.default_rng(seed)
    matrix = forms[layout](counts) if layout in forms else disorder(counts, random)
    cells, genes = names(counts)
    obs, var = pd.DataFrame(index=cells), pd.DataFrame(index=genes)
    adata = anndata.AnnData(matrix.astype(dtype), obs=obs, var=var)
    adata.write_h5ad(tmp_path / "a.h5ad")
    found = read(tmp_path / "a.h5ad")
    assert found[:2] == (cells, genes)
    assert (found[2] == counts).all()


def write_table(folder, counts, suffix):
    cells, genes = names(counts)
    separator = "," if "csv" in suffix else "\t"
    pd.DataFrame(counts, cells, genes).to_csv(folder / f"a{suffix}", sep=separator)
    return folder / f"a{suffix}"


def write_tenx(folder, counts, suffix):
    place = folder / f"tenx{suffix.replace('.', '_')}"
    place.mkdir(exist_ok=True)
    cells, genes = names(counts)
    matrix = sparse.coo_matrix(counts.T)
    io.mmwrite(place / "matrix.mtx", matrix, field="integer", symmetry="general")
    (place / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in cells))
    (place / "genes.tsv").write_text("".join(f"{gene}\t{gene}\n" for gene in genes))
    if suffix == ".gz":
        packed = gzip.compress((place / "matrix.mtx").read_bytes())
        (place / "matrix.mtx.gz").write_bytes(packed)
        (place / "matrix.mtx").unlink()
    return place


def write_loom(folder, counts, suffix):
    cells, genes = names(counts)
    with h5py.File(folder / "a.loom", "w") as file:
        file["matrix"] = counts.T
        file["row_attrs/Gene"] = np.array(genes, dtype="S")
        file["col_attrs/CellID"] = np.array(cells, dtype="S")
        file.create_group("layers")
    return folder / "a.loom"


WRITERS = st.sampled_from(
    [
        (write_table, ".csv"),
        (write_table, ".tsv"),
        (write_table, ".csv.gz"),
        (write_tenx, ""),
        (write_tenx, ".gz"),
        (write_loom, ""),
    ]
)


@BOUNDED
@given(COUNTS, WRITERS)
def test_every_format_gives_the_same_counts(tmp_path_factory, counts, writer):
    write, suffix = writer
    found = read(write(tmp_path_factory.mktemp("format"), counts, suffix))
    assert found[:2] == names(counts)
    assert (found[2] == counts).all()


WORDS = st.lists(st.sampled_from(["a", "a-1", "A", "b", "", "ENSG00000000001.2"]), min_size=3)


@BOUNDED
@given(WORDS, WORDS)
def test_names_that_clash_are_read_as_they_are_or_refused(tmp_path_factory, cells, genes):
    path = tmp_path_factory.mktemp("names") / "a.csv"
    counts = np.ones((len(cells), len(genes)), int)
    table = pd.DataFrame(counts, cells, genes)
    table.to_csv(path)
    try:
        found_cells, found_genes, matrix = read(path)
    except InputError:
        return
    assert len(set(found_cells)) == len(found_cells) == len(cells)
    assert len(set(found_genes)) == len(found_genes)
    assert (matrix == 1).all()
