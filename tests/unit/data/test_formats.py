"""Every format gives the same counts, names and columns."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from sclatent.data.blocks import Rows
from sclatent.data.formats import read_content
from sclatent.data.settings import Entry
from sclatent.errors import InputError

COUNTS = np.array([[0, 3, 0], [1, 0, 0], [0, 0, 70_000], [2, 5, 1]], dtype=np.int64)
CELLS = ["c1", "c2", "c3", "c4"]
GENES = ["ACTB", "CD3E", "MS4A1"]


def adata(**options):
    obs = pd.DataFrame({"donor": pd.Categorical(list("abab"))}, index=CELLS)
    return anndata.AnnData(
        sparse.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=GENES), **options
    )


def write_loom(path):
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["matrix"] = COUNTS.T
        file["layers/spliced"] = COUNTS.T // 2
        file.create_dataset("col_attrs/CellID", data=np.array(CELLS, object), dtype=text)
        file.create_dataset("col_attrs/donor", data=np.array(list("abab"), object), dtype=text)
        file.create_dataset("row_attrs/Gene", data=np.array(GENES, object), dtype=text)
        file.create_group("row_graphs")


def as_table(separator=",", transposed=False):
    table = pd.DataFrame(COUNTS, CELLS, GENES)
    return (table.T if transposed else table).to_csv(sep=separator)


def write(kind, folder):
    path = folder / f"counts.{kind}"
    if kind == "h5ad":
        adata().write_h5ad(path)
    elif kind == "zarr":
        adata().write_zarr(path)
    elif kind == "loom":
        write_loom(path)
    elif kind.endswith("gz"):
        path.write_bytes(gzip.compress(as_table("," if "csv" in kind else "\t").encode()))
    else:
        path.write_text(as_table("," if kind == "csv" else "\t"))
    return path


def dense(matrix):
    if isinstance(matrix, Rows):
        matrix = matrix.to_csr()
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "loom", "csv", "tsv", "csv.gz", "tsv.gz"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")
def test_every_format_gives_the_same_counts_and_names(kind, tmp_path):
    content = read_content(write(kind, tmp_path), Entry())
    counts, var = content.matrices["X"]()
    np.testing.assert_array_equal(dense(counts), COUNTS)
    assert list(content.obs.index) == CELLS
    assert list(var.index) == GENES
    if kind in ("h5ad", "zarr", "loom"):
        assert list(content.obs["donor"].astype(str)) == list("abab")


def test_the_format_is_told_by_content_not_by_suffix(tmp_path):
    path = tmp_path / "download"
    adata().write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "a.h5ad").rename(path)
    assert list(read_content(path, Entry()).obs.index) == CELLS


def test_layers_and_raw_of_an_h5ad_are_offered_and_only_the_truth_of_its_slots_is_read(tmp_path):
    data = adata(layers={"counts": COUNTS * 2}, obsm={"true_z": np.ones((4, 2)), "X_pca": COUNTS})
    data.raw = data
    data[:, :2].copy().write_h5ad(tmp_path / "a.h5ad")
    content = read_content(tmp_path / "a.h5ad", Entry())
    assert set(content.matrices) == {"X", "raw", "counts"}
    assert set(content.obsm) == {"true_z"}
    assert content.matrices["raw"]()[0].shape == (4, 3)
    np.testing.assert_array_equal(dense(content.matrices["counts"]()[0]), 2 * COUNTS[:, :2])


def test_layers_of_a_loom_file_are_offered(tmp_path):
    write_loom(tmp_path / "a.loom")
    content = read_content(tmp_path / "a.loom", Entry())
    np.testing.assert_array_equal(dense(content.matrices["spliced"]()[0]), COUNTS // 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_tables_may_have_genes_in_rows_a_bom_and_windows_line_ends(encoding, ends, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(as_table(transposed=True).replace("\n", ends).encode(encoding))
    content = read_content(path, Entry(genes_in_rows=True))
    counts, var = content.matrices["X"]()
    np.testing.assert_array_equal(dense(counts), COUNTS)
    assert list(var.index) == GENES


def test_a_header_without_a_corner_as_r_writes_it_is_understood(tmp_path):
    (tmp_path / "a.tsv").write_text(as_table("\t").removeprefix("\t"))
    counts, var = read_content(tmp_path / "a.tsv", Entry()).matrices["X"]()
    np.testing.assert_array_equal(dense(counts), COUNTS)
    assert list(var.index) == GENES


def test_repeated_names_in_a_table_are_not_renamed(tmp_path):
    (tmp_path / "a.csv").write_text(",G,G\nc,1,2\nc,3,4\n")
    content = read_content(tmp_path / "a.csv", Entry())
    assert list(content.obs.index) == ["c", "c"]
    assert list(content.matrices["X"]()[1].index) == ["G", "G"]


def test_a_cell_called_na_keeps_its_name(tmp_path):
    (tmp_path / "a.csv").write_text(",G\nNA,1\n007,2\n")
    assert list(read_content(tmp_path / "a.csv", Entry()).obs.index) == ["NA", "007"]


def test_words_among_the_numbers_of_a_table_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text(",G,H\nc,1,B cell\n")
    with pytest.raises(InputError, match=r"a.csv.*holds text in column 3, such as 'B cell'"):
        read_content(tmp_path / "a.csv", Entry())


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_text_is_said_to_be_of_no_known_format(tmp_path, packed):
    content = bytes(range(128, 256)) * 9
    (tmp_path / "seurat.rds").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=r"E312 .*seurat.rds: is no text .*convert it to h5ad"):
        read_content(tmp_path / "seurat.rds", Entry())


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "pbmc.h5ad").touch()
    with pytest.raises(InputError, match=r"does not exist.*did you mean 'pbmc.h5ad'"):
        read_content(tmp_path / "pmbc.h5ad", Entry())


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(share, tmp_path):
    path = write("h5ad", tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"counts.h5ad.*(cannot be read|is empty)"):
        read_content(path, Entry()).matrices["X"]()


def test_a_small_file_that_declares_a_giant_matrix_is_refused_at_once(tmp_path):
    path = write("h5ad", tmp_path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_dataset("X", shape=(10**7, 10**6), dtype="f4", chunks=(1000, 1000))
    with pytest.raises(InputError, match="declares 40 TB"):
        read_content(path, Entry()).matrices["X"]()


@pytest.mark.parametrize("place", ["obs/donor/codes", "obs/_index", "var/_index"])
def test_a_small_file_whose_cells_or_genes_declare_a_giant_column_is_refused(place, tmp_path):
    path = write("h5ad", tmp_path)
    with h5py.File(path, "r+") as file:
        kind, attributes = file[place].dtype, dict(file[place].attrs)
        del file[place]
        file.create_dataset(place, (10**13,), kind, chunks=(1000,)).attrs.update(attributes)
    with pytest.raises(InputError, match=r"E310 .*/(obs|var) declares \d+ TB"):
        read_content(path, Entry()).matrices["X"]()


def test_a_small_loom_file_that_declares_a_giant_attribute_is_refused(tmp_path):
    path = write("loom", tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("row_attrs/length", (10**13,), "f8", chunks=(1000,))
    with pytest.raises(InputError, match=r"E310 .*/row_attrs declares 80 TB"):
        read_content(path, Entry())


def test_a_small_zarr_store_that_declares_a_giant_array_is_refused(tmp_path):
    path = tmp_path / "counts.zarr"
    zarr.open_group(path, mode="w").create_array("X", shape=(10**13,), chunks=(10**9,), dtype="f8")
    with pytest.raises(InputError, match=r"E310 .*it declares 80 TB"):
        read_content(path, Entry())


def test_a_gzipped_table_that_unpacks_to_more_than_allowed_is_refused(tmp_path):
    path = tmp_path / "counts.csv.gz"
    path.write_bytes(gzip.compress(b"cell,gene\n" + b"c,0\n" * 3_000_000))
    with pytest.raises(InputError, match=r"E332 .*counts.csv.gz: is refused: .* unpack to more"):
        read_content(path, Entry())


def test_hdf5_of_another_kind_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = [1]
    with pytest.raises(InputError, match="neither h5ad, 10x nor loom; it holds: image"):
        read_content(tmp_path / "a.h5", Entry())


def test_a_folder_without_counts_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 matrices"):
        read_content(tmp_path, Entry())
