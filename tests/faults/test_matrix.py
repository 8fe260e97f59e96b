"""What a file of counts may hold, and what it may not."""

import numpy as np
import pytest
from scipy import io, sparse


def write_folder(folder, genes_by_cells):
    """Write a 10x folder with names for rows and columns."""
    folder.mkdir()
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(genes_by_cells), field="integer")
    n_genes, n_cells = genes_by_cells.shape
    (folder / "genes.tsv").write_text("".join(f"E{i}\tG{i}\n" for i in range(n_genes)))
    (folder / "barcodes.tsv").write_text("".join(f"cell{i}\n" for i in range(n_cells)))
    return str(folder)


def test_case_1_log_normalised_counts_are_refused_and_the_layer_with_counts_is_named(bench):
    adata = bench.adata()
    adata.layers["counts"] = adata.X.copy()
    adata.X.data = np.log1p(adata.X.data)
    bench.refuse(bench.save(adata), r"not whole numbers.*Fix: set layer: counts")


@pytest.mark.parametrize(
    ("case", "value", "words"), [(4, np.nan, "NaN"), (5, np.inf, "infinite"), (6, -1, "negative")]
)
def test_case_4_a_value_that_is_no_count_is_named_with_its_cell_and_gene(bench, case, value, words):
    adata = bench.adata(np.ones((6, 10), np.float32))
    adata.X[2, 3] = value
    bench.refuse(bench.save(adata), rf"1 of 60 stored .*are {words}.*cell cell2, gene G3")


def test_case_16_a_square_matrix_that_is_transposed_is_told_by_its_totals(bench):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.exp(rng.normal(0, 2, 200))[:, None] * np.ones(200))
    assert bench.read(write_folder(bench.folder / "right", counts)).shape == (200, 200)
    bench.refuse(write_folder(bench.folder / "wrong", counts.T), "it is transposed")


def test_case_17_a_matrix_that_ends_early_is_named_with_its_last_line(bench):
    folder = bench.folder / "short"
    write_folder(folder, np.ones((3, 4), int))
    lines = (folder / "matrix.mtx").read_text().splitlines()
    (folder / "matrix.mtx").write_text("\n".join(lines[:-2]) + "\n")
    pattern = rf"promises 12 values and ends after line {len(lines) - 2}"
    bench.refuse(str(folder), pattern)


def test_case_25_the_same_cells_under_new_names_are_warned_of(bench, capsys):
    adata = bench.adata(np.random.default_rng(1).poisson(20, (6, 10)).astype(np.float32))
    bench.read({"one": bench.save(adata, "1.h5ad"), "two": bench.save(adata, "2.h5ad")})
    assert "WARNING 6 cells have exactly the counts of another" in capsys.readouterr().out


def test_case_28_versions_of_ensembl_ids_are_taken_off_with_a_warning(bench, capsys):
    one, two = bench.adata(), bench.adata()
    one.var_names = [f"ENSG{i:011}" for i in range(10)]
    two.var_names = [f"{name}.{i}" for i, name in enumerate(one.var_names)]
    found = bench.read({"one": bench.save(one, "1.h5ad"), "two": bench.save(two, "2.h5ad")})
    assert list(found.var_names) == list(one.var_names)
    assert "10 Ensembl ids lose their version" in capsys.readouterr().out


def test_case_29_genes_of_a_mouse_and_of_a_human_are_said_to_differ_in_case(bench):
    one, two = bench.adata(), bench.adata()
    one.var_names = [f"GENE{i}" for i in range(10)]
    two.var_names = [f"Gene{i}" for i in range(10)]
    samples = {"one": bench.save(one, "1.h5ad"), "two": bench.save(two, "2.h5ad")}
    bench.refuse(samples, "share only 0 genes.*differ in case only")


def test_case_32_batches_1_and_1_0_are_merged_with_a_warning(bench, capsys):
    path = bench.save(bench.adata(lane=["1", "1.0", "2", "2", "1", "2"]))
    assert set(bench.read(path, batch="lane").obs["batch"]) == {"1", "2"}
    assert "WARNING batches '1' and '1.0' are taken for one" in capsys.readouterr().out


def test_case_38_a_label_of_one_batch_only_is_said_to_be_confounded(bench, capsys):
    adata = bench.adata(lane=list("aaabbb"), type=["T", "B", "T", "T", "T", "NK"])
    bench.read(bench.save(adata), batch="lane", cell_type="type")
    assert "2 of 3 cell types are in one batch only" in capsys.readouterr().out


def test_case_39_batches_that_are_labels_are_warned_of_loudly(bench, capsys):
    adata = bench.adata(lane=list("aaabbb"), type=list("TTTBBB"))
    bench.read(bench.save(adata), batch="lane", cell_type="type")
    assert "WARNING no cell type is in two batches" in capsys.readouterr().out
