"""Cell Ranger's files of both versions, and what goes wrong with them."""

import gzip

import h5py
import numpy as np
import pytest
from scipy import io, sparse

from sclatent.data.blocks import Rows
from sclatent.data.formats import read_content
from sclatent.data.settings import Entry
from sclatent.errors import InputError

COUNTS = np.array([[0, 3, 0], [1, 0, 0], [0, 0, 9], [2, 5, 1]])
CELLS = ["AAACCCAAGA-1", "AAACCCAAGC-1", "AAACCCAAGG-1", "AAACCCAAGT-1"]
IDS = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
NAMES = ["ACTB", "CD3E", "MS4A1"]
GENE = "Gene Expression"


def write_folder(folder, columns=3, zipped=True, ends="\n", bom="", types=(GENE,) * 3, prefix=""):
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(IDS, NAMES, types, strict=True)
    features = [row[1:2] if columns == 1 else row[:columns] for row in rows]
    features_name = "features.tsv" if zipped else "genes.tsv"
    texts = {
        features_name: bom + "".join("\t".join(row) + ends for row in features),
        "barcodes.tsv": bom + "".join(cell + ends for cell in CELLS),
    }
    io.mmwrite(folder / "m.mtx", sparse.coo_matrix(COUNTS.T), field="integer")
    texts["matrix.mtx"] = (folder / "m.mtx").read_text()
    (folder / "m.mtx").unlink()
    for name, text in texts.items():
        content = text.encode()
        path = folder / (prefix + name + (".gz" if zipped else ""))
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def write_hdf5(path, genomes=("GRCh38",) * 3, types=(GENE,) * 3):
    matrix = sparse.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        fill(group, matrix)
        features = group.create_group("features")
        for name, values in (("id", IDS), ("name", NAMES), ("feature_type", types)):
            features[name] = np.array(values, "S")
        features["genome"] = np.array(genomes, "S")
    return path


def fill(group, matrix):
    group["barcodes"] = np.array(CELLS, "S")
    group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
    group["shape"] = np.array(matrix.shape[::-1])


def write_hdf5_v2(path, genomes=("hg19",)):
    with h5py.File(path, "w") as file:
        for genome in genomes:
            group = file.create_group(genome)
            fill(group, sparse.csr_matrix(COUNTS))
            group["genes"], group["gene_names"] = np.array(IDS, "S"), np.array(NAMES, "S")
    return path


def read(path, **entry):
    content = read_content(path, Entry(**entry))
    counts, var = content.matrices["X"]()
    return counts.to_csr() if isinstance(counts, Rows) else counts, var, content.obs


def check(counts, var, obs):
    np.testing.assert_array_equal(counts.toarray(), COUNTS)
    assert list(obs.index) == CELLS
    assert list(var.index) == NAMES


def test_hdf5_of_both_versions_and_folders_of_both_versions_agree(tmp_path):
    paths = [
        write_hdf5(tmp_path / "3.h5"),
        write_hdf5_v2(tmp_path / "2.h5"),
        write_folder(tmp_path / "3"),
        write_folder(tmp_path / "2", columns=2, zipped=False),
        write_folder(tmp_path / "geo", prefix="GSM1_"),
        write_folder(tmp_path / "file") / "matrix.mtx.gz",
    ]
    for path in paths:
        counts, var, obs = read(path)
        check(counts, var, obs)
        assert list(var["gene_id"]) == IDS


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_features_may_have_few_columns_windows_line_ends_and_a_bom(columns, ends, bom, tmp_path):
    counts, var, obs = read(write_folder(tmp_path / "a", columns=columns, ends=ends, bom=bom))
    check(counts, var, obs)
    assert ("gene_id" in var) == (columns > 1)


@pytest.mark.parametrize("kind", ["folder", "hdf5"])
def test_antibodies_are_left_out_with_a_warning(kind, tmp_path, capsys):
    types = (GENE, "Antibody Capture", GENE)
    if kind == "folder":
        path = write_folder(tmp_path / "a", types=types)
    else:
        path = write_hdf5(tmp_path / "a.h5", types=types)
    counts, var, _ = read(path)
    np.testing.assert_array_equal(counts.toarray(), COUNTS[:, [0, 2]])
    assert list(var.index) == ["ACTB", "MS4A1"]
    assert "WARNING" in (out := capsys.readouterr().out)
    assert "1 Antibody Capture left out; 2 Gene Expression kept" in out


def test_several_genomes_ask_for_one_and_one_is_kept(tmp_path):
    path = write_hdf5(tmp_path / "3.h5", genomes=("GRCh38", "mm10", "GRCh38"))
    with pytest.raises(InputError, match=r"holds 2 genomes: GRCh38, mm10.*set genome"):
        read(path)
    assert list(read(path, genome="mm10")[1].index) == ["CD3E"]
    old = write_hdf5_v2(tmp_path / "2.h5", genomes=("hg19", "mm10"))
    with pytest.raises(InputError, match="holds 2 genomes"):
        read(old)
    check(*read(old, genome="hg19"))
    with pytest.raises(InputError, match=r"no genome 'mm9'.*did you mean 'mm10'"):
        read(old, genome="mm9")


def test_a_transposed_matrix_is_told_from_one_of_another_run(tmp_path):
    folder = write_folder(tmp_path / "a", zipped=False, columns=2)
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS))
    with pytest.raises(InputError, match=r"4 rows x 3 columns.*it is transposed"):
        read(folder)
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS[:2]))
    with pytest.raises(InputError, match="take the three files from one run"):
        read(folder)


def test_a_matrix_with_fewer_lines_than_it_promises_is_refused(tmp_path):
    folder = write_folder(tmp_path / "a", zipped=False, columns=2)
    path = folder / "matrix.mtx"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match=r"it promises 6 values and ends after line 8"):
        read(folder)


def test_a_matrix_that_promises_more_than_the_memory_is_refused_before_it_is_read(tmp_path):
    folder = write_folder(tmp_path / "a", zipped=False, columns=2)
    header = "%%MatrixMarket matrix coordinate integer general\n3 4 99999999999999\n1 1 1\n"
    (folder / "matrix.mtx").write_text(header)
    with pytest.raises(InputError, match="declares"):
        read(folder)


def test_a_truncated_gzip_is_refused_by_name(tmp_path):
    path = write_folder(tmp_path / "a") / "matrix.mtx.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("name", ["barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz"])
def test_a_gzip_that_unpacks_to_more_than_allowed_is_refused_by_name(name, tmp_path):
    path = write_folder(tmp_path / "a") / name
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\n" * 11_000_000))
    with pytest.raises(InputError, match=rf"E332 .*{name}: is refused: .* unpack to more"):
        read(path.parent)


def test_names_that_declare_more_than_the_memory_are_refused(tmp_path):
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["matrix/barcodes"]
        file.create_dataset("matrix/barcodes", (10**13,), "S18", chunks=(1000,))
    with pytest.raises(InputError, match=r"E310 .*/matrix/barcodes declares 180 TB"):
        read(path)


def test_a_missing_barcodes_file_is_named(tmp_path):
    folder = write_folder(tmp_path / "a")
    (folder / "barcodes.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"barcodes.tsv\(.gz\) is not there"):
        read(folder)
