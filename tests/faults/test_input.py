"""What a dataset may hold, and what it may not: matrix, names, batches, labels."""

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


def refuse_value(bench, value, words):
    adata = bench.adata(np.ones((6, 10), np.float32))
    adata.X[2, 3] = value
    bench.refuse(bench.save(adata), rf"1 of 60 stored .*are {words}.*cell cell2, gene G3")


def test_case_4_a_missing_count_is_named_with_its_cell_and_gene(bench):
    refuse_value(bench, np.nan, "NaN")


def test_case_5_an_infinite_count_is_named_with_its_cell_and_gene(bench):
    refuse_value(bench, np.inf, "infinite")


def test_case_6_a_negative_count_is_named_with_its_cell_and_gene(bench):
    refuse_value(bench, -1, "negative")


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


def test_case_2_counts_in_raw_are_used_where_x_is_normalised_and_that_is_said(bench, capsys):
    adata = bench.adata()
    counts = adata.X.toarray()
    adata.raw = adata.copy()
    adata.X.data = np.log1p(adata.X.data)
    assert (bench.read(bench.save(adata)).X.toarray() == counts).all()
    assert "X does not hold counts" in capsys.readouterr().out


def test_case_3_a_share_of_fractions_is_told_exactly(bench):
    adata = bench.adata(np.ones((10, 10), np.float32))
    adata.X[7, 4] = 0.5
    bench.refuse(bench.save(adata), r"E228 .*1 of 100 stored values \(1 %\) are not whole numbers")


def test_case_3_fractions_under_a_header_of_integers_are_not_cut_off(bench):
    folder = bench.folder / "cut"
    write_folder(folder, np.full((3, 4), 2))
    text = (folder / "matrix.mtx").read_text()
    (folder / "matrix.mtx").write_text(text.removesuffix("2\n") + "2.5\n")
    bench.refuse(str(folder), "E228 .*header says integer")


def test_case_7_negative_zeros_are_zeros(bench):
    matrix = np.ones((6, 10), np.float32)
    matrix[0, 0] = -0.0
    found = bench.read(bench.save(bench.adata(matrix))).X
    assert found[0, 0] == 0
    assert found.nnz == 59


def canonical(bench, matrix, name):
    found = bench.read(bench.save(bench.adata(matrix), name)).X
    return found.indptr.tolist(), found.indices.tolist(), found.data.tolist(), found.dtype


def test_case_8_zeros_that_are_stored_unsorted_and_repeated_indices_change_nothing(bench):
    plain = np.zeros((6, 10), np.float32)
    plain[0, [1, 4]] = 3, 2
    odd = sparse.csr_matrix((6, 10), dtype=np.float32)
    odd.data = np.array([2, 1, 2, 0], np.float32)
    odd.indices = np.array([4, 1, 1, 7], np.int32)
    odd.indptr = np.array([0, 4, 4, 4, 4, 4, 4], np.int32)
    assert canonical(bench, odd, "odd.h5ad") == canonical(bench, plain, "plain.h5ad")


@pytest.mark.parametrize("dtype", ["int64", "float64", "uint8", "bool"])
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_case_9_every_layout_and_type_gives_the_same_counts(bench, dtype, form):
    counts = np.random.default_rng(9).poisson(0.3, (6, 10)).clip(0, 1)
    wanted = canonical(bench, counts.astype(np.float32), "plain.h5ad")
    assert canonical(bench, form(counts.astype(dtype)), "other.h5ad") == wanted


def test_case_11_genes_of_zeros_stay(bench):
    matrix = np.ones((6, 10), np.float32)
    matrix[:, 3] = 0
    assert bench.read(bench.save(bench.adata(matrix))).shape == (6, 10)


def test_case_14_counts_that_a_float_cannot_hold_exactly_are_refused(bench):
    matrix = np.ones((6, 10), np.float32)
    matrix[1, 1] = 2**25
    bench.refuse(bench.save(bench.adata(matrix)), r"E229 .*are too large")


def test_case_15_a_transposed_h5ad_is_told_by_its_names(bench):
    adata = bench.adata()
    barcodes = [
        "ACGTACGTACGTAC" + tail for tail in ("AA-1", "AC-1", "AG-1", "AT-1", "CA-1", "CC-1")
    ]
    adata.obs_names = barcodes
    bench.refuse(bench.save(adata.T.copy()), r"E231 .*")


def test_case_18_a_truncated_mtx_gz_is_named(bench):
    import gzip

    folder = bench.folder / "cut"
    write_folder(folder, np.ones((300, 40), int))
    packed = gzip.compress((folder / "matrix.mtx").read_bytes())
    (folder / "matrix.mtx").unlink()
    (folder / "matrix.mtx.gz").write_bytes(packed[: len(packed) // 2])
    bench.refuse(str(folder), r"E310 .*matrix.mtx.gz")


@pytest.mark.parametrize("line", ["E{0}\n", "E{0}\tG{0}\n", "E{0}\tG{0}\tGene Expression\r\n"])
def test_case_19_features_of_one_to_three_columns_with_any_line_ends_are_read(bench, line):
    folder = bench.folder / "any"
    write_folder(folder, np.ones((3, 4), int))
    text = "".join(line.format(i) for i in range(3))
    (folder / "genes.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = bench.read(str(folder))
    assert found.shape == (4, 3)
    assert found.var_names[0] in ("E0", "G0")


def test_case_20_antibodies_among_the_features_are_left_out_with_a_warning(bench, capsys):
    folder = bench.folder / "mixed"
    write_folder(folder, np.ones((3, 4), int))
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression"]
    (folder / "genes.tsv").unlink()
    rows = "".join(f"E{i}\tG{i}\t{kind}\n" for i, kind in enumerate(kinds))
    (folder / "features.tsv").write_text(rows)
    assert bench.read(str(folder)).n_vars == 2
    assert "Antibody Capture" in capsys.readouterr().out


def test_case_21_folders_of_10x_v2_and_v3_give_the_same(bench):
    import gzip

    counts = np.arange(12).reshape(3, 4)
    old, new = bench.folder / "old", bench.folder / "new"
    write_folder(old, counts)
    write_folder(new, counts)
    for name, packed in (("matrix.mtx", "matrix.mtx"), ("barcodes.tsv",) * 2):
        (new / f"{packed}.gz").write_bytes(gzip.compress((new / name).read_bytes()))
        (new / name).unlink()
    features = (new / "genes.tsv").read_text().replace("\n", "\tGene Expression\n")
    (new / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    (new / "genes.tsv").unlink()
    one, two = bench.read(str(old)), bench.read(str(new))
    assert (one.X != two.X).nnz == 0
    assert list(one.var_names) == list(two.var_names)
    assert list(one.obs_names) == list(two.obs_names)


def test_case_23_a_barcode_that_two_cells_share_is_an_error(bench):
    adata = bench.adata()
    adata.obs_names = ["a", "a", "b", "c", "d", "e"]
    path = bench.save(adata)
    bench.refuse(path, r"E233 .*'?a'?")


def test_case_24_the_same_barcodes_in_two_samples_are_kept_apart(bench):
    one, two = bench.adata(), bench.adata(np.full((6, 10), 9, np.float32))
    found = bench.read({"one": bench.save(one, "1.h5ad"), "two": bench.save(two, "2.h5ad")})
    assert list(found.obs_names[[0, 6]]) == ["one_cell0", "two_cell0"]


def test_case_26_genes_of_one_symbol_go_by_their_ids_or_are_refused(bench):
    adata = bench.adata()
    adata.var_names = ["SAME", "SAME", *(f"G{i}" for i in range(8))]
    path = bench.save(adata)
    bench.refuse(path, r"E232 .*SAME")
    adata.var["gene_id"] = [f"ENSG{i:011}" for i in range(10)]
    path = bench.save(adata, "ids.h5ad")
    assert bench.read(path).var_names.is_unique


def test_case_33_a_column_that_is_missing_is_named_with_the_nearest_one(bench):
    path = bench.save(bench.adata(celltype=list("aabbcc")))
    bench.refuse(path, r"E201 .*did you mean 'celltype'", cell_type="cell_type")


def test_case_34_no_label_at_all_is_warned_of_with_the_count(bench, capsys):
    path = bench.save(bench.adata(type=["?"] * 6))
    found = bench.read(path, cell_type="type", unknown="?")
    assert found.obs["cell_type"].tolist() == ["Unknown"] * 6
    assert "WARNING 0 of 6 cells have a label in type" in capsys.readouterr().out


def test_case_35_an_unknown_label_that_is_misspelt_is_named(bench):
    path = bench.save(bench.adata(type=["Unknown", *"aabbb"]))
    bench.refuse(path, r"E205 .*did you mean 'Unknown'", cell_type="type", unknown="unknown")


def test_case_36_missing_labels_are_unknown(bench):
    path = bench.save(bench.adata(type=[None, *"aabbb"]))
    found = bench.read(path, cell_type="type")
    assert found.obs["cell_type"].tolist() == ["Unknown", *"aabbb"]


def test_case_40_a_dataset_of_one_batch_is_read(bench):
    assert bench.read(bench.save(bench.adata())).obs["batch"].nunique() == 1


def test_case_41_a_batch_of_one_cell_is_named_and_may_be_dropped_or_merged(bench):
    path = bench.save(bench.adata(lane=list("aabbcd")))
    bench.refuse(path, r"E203 .*c \(1\), d \(1\)\. Fix: .*drop or merge", batch="lane")
    assert bench.read(path, batch="lane", small="drop").n_obs == 4
    assert bench.read(path, batch="lane", small="merge").n_obs == 6
    path = bench.save(bench.adata(lane=list("aaabbc")), "one.h5ad")
    merged = bench.read(path, batch="lane", small="merge").obs["batch"]
    assert merged.value_counts().to_dict() == {"a": 3, "b": 3}


def test_case_42_categories_that_no_cell_has_are_dropped(bench):
    import pandas as pd

    adata = bench.adata()
    adata.obs["lane"] = pd.Categorical(list("aaabbb"), categories=["a", "b", "nobody"])
    found = bench.read(bench.save(adata), batch="lane")
    assert list(found.obs["batch"].cat.categories) == ["a", "b"]


def test_case_22_a_file_of_several_genomes_asks_for_one_and_then_holds_that_one(bench):
    import h5py

    path = bench.folder / "two.h5"
    with h5py.File(path, "w") as file:
        for genome in ("hg19", "mm10"):
            matrix = sparse.csr_matrix(np.arange(6).reshape(2, 3) + (genome == "mm10"))
            group = file.create_group(genome)
            group["barcodes"] = np.array(["a", "b"], "S")
            group["genes"] = np.array([f"{genome}_E{i}" for i in range(3)], "S")
            group["gene_names"] = np.array([f"{genome}_G{i}" for i in range(3)], "S")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(matrix, name)
            group["shape"] = np.array([3, 2])
    bench.refuse(str(path), r"E315 .*2 genomes: hg19, mm10\. Fix: set genome")
    bench.refuse(str(path), r"E316 .*did you mean 'mm10'", genome="mm1")
    assert bench.read(str(path), genome="mm10").X.sum() == 21


def test_case_30_genes_in_another_order_are_put_into_the_order_of_the_first_sample(bench):
    one = bench.adata()
    two = one[:, one.var_names[::-1]].copy()
    samples = {"one": bench.save(one, "1.h5ad"), "two": bench.save(two, "2.h5ad")}
    found = bench.read(samples)
    assert (found.X[:6] != found.X[6:]).nnz == 0
