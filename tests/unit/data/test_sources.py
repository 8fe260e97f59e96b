"""From a config entry to checked counts with batch and cell_type."""

import tarfile
import tempfile

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from sclatent import files
from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset, write_counts
from sclatent.data.store import UNKNOWN
from sclatent.errors import InputError

GENES = [f"G{i}" for i in range(10)]
LIMITS = Limits(min_cells_per_batch=2)


def make(n_cells=6, genes=GENES, seed=0, **obs):
    counts = np.random.default_rng(seed).poisson(1, (n_cells, len(genes)))
    table = pd.DataFrame(obs, index=[f"cell{i}" for i in range(n_cells)])
    return anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=table, var=pd.DataFrame(index=genes)
    )


def save(adata, path):
    adata.write_h5ad(path)
    return str(path)


def read(samples, limits=LIMITS, **entry):
    samples = {"mine": samples} if isinstance(samples, str) else samples
    dataset = read_dataset("mine", Entry(**entry), samples, limits)
    with tempfile.TemporaryDirectory() as folder:
        write_counts(f"{folder}/counts.h5ad", dataset)
        return anndata.read_h5ad(f"{folder}/counts.h5ad")


def check(adata):
    """Check what every later stage relies on, also after writing and reading."""
    assert adata.X.dtype == np.int32
    assert adata.X.has_canonical_format
    assert (adata.X.data > 0).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    for column in ("batch", "cell_type"):
        assert adata.obs[column].dtype == "category"
        assert set(adata.obs[column]) == set(adata.obs[column].cat.categories)


def test_one_file_keeps_its_cells_their_order_and_its_columns(tmp_path):
    adata = make(donor=list("aabbab"), type=["T", "B", "?"] * 2, age=range(6))
    path = save(adata, tmp_path / "a.h5ad")
    found = read(path, batch="donor", cell_type="type", unknown="?")
    check(found)
    assert list(found.obs_names) == list(adata.obs_names)
    np.testing.assert_array_equal(found.X.toarray(), adata.X.toarray())
    assert list(found.obs["batch"]) == list("aabbab")
    assert list(found.obs["cell_type"]) == ["T", "B", UNKNOWN] * 2
    assert list(found.obs["age"]) == list(range(6))
    files.write_h5ad(tmp_path / "again.h5ad", found)
    check(anndata.read_h5ad(tmp_path / "again.h5ad"))


def test_a_file_without_columns_is_one_batch_without_labels(tmp_path):
    found = read(save(make(), tmp_path / "a.h5ad"))
    check(found)
    assert set(found.obs["batch"]) == {"mine"}
    assert set(found.obs["cell_type"]) == {UNKNOWN}


def test_samples_become_batches_on_the_genes_they_share(tmp_path, capsys):
    samples = {
        "one": save(make(4, seed=1, lane=[1, 1, 2, 2]), tmp_path / "1.h5ad"),
        "two": save(make(3, GENES[::-1][:9], seed=2, lane=[1.0, 2.0, np.nan]), tmp_path / "2.h5ad"),
    }
    found = read(samples)
    check(found)
    assert list(found.obs["batch"]) == ["one"] * 4 + ["two"] * 3
    assert list(found.obs_names) == [f"one_cell{i}" for i in range(4)] + [
        f"two_cell{i}" for i in range(3)
    ]
    assert list(found.var_names) == GENES[1:]
    expected = anndata.read_h5ad(samples["two"])[:, GENES[1:]].X.toarray()
    np.testing.assert_array_equal(found[4:].X.toarray(), expected)
    assert "2 samples share 9 genes; 1 others are dropped" in capsys.readouterr().out


def test_a_column_may_name_the_batch_of_several_samples(tmp_path):
    samples = {
        "one": save(make(4, lane=[1, 1, 2, 2]), tmp_path / "1.h5ad"),
        "two": save(make(3, lane=[1.0, 2.0, 2.0]), tmp_path / "2.h5ad"),
    }
    found = read(samples, batch="lane")
    assert list(found.obs["batch"]) == ["1", "1", "2", "2", "1", "2", "2"]
    assert list(found.obs["source_sample"]) == ["one"] * 4 + ["two"] * 3
    files.write_h5ad(tmp_path / "again.h5ad", found)


def test_an_own_column_called_sample_is_not_overwritten(tmp_path):
    samples = {
        "one": save(make(4, sample=["x", "x", "y", "y"]), tmp_path / "1.h5ad"),
        "two": save(make(2, sample=["z", "z"]), tmp_path / "2.h5ad"),
    }
    assert list(read(samples, batch="sample").obs["batch"]) == ["x", "x", "y", "y", "z", "z"]
    assert set(read(samples).obs["batch"]) == {"one", "two"}
    assert set(read(samples["one"]).obs["batch"]) == {"mine"}


def test_samples_with_other_genes_are_refused_with_an_example_of_each(tmp_path):
    samples = {
        "one": save(make(), tmp_path / "1.h5ad"),
        "two": save(make(genes=[f"ENS{i}" for i in range(10)]), tmp_path / "2.h5ad"),
    }
    with pytest.raises(
        InputError, match=r"share only 0 genes \(one 10 symbols in capitals such as G0; two"
    ):
        read(samples)


def test_all_problems_of_all_samples_are_raised_at_once(tmp_path):
    bad = make()
    bad.X.data[0] = 0.5
    twice = make()
    twice.X.data[1] = -1
    samples = {
        "one": save(bad, tmp_path / "1.h5ad"),
        "none": str(tmp_path / "missing.h5ad"),
        "two": save(twice, tmp_path / "2.h5ad"),
    }
    with pytest.raises(InputError) as caught:
        read(samples)
    assert len(caught.value.problems) == 3


def test_all_problems_of_the_columns_are_raised_at_once(tmp_path):
    path = save(make(donor=list("aaaaab"), type=["T"] * 6), tmp_path / "a.h5ad")
    with pytest.raises(InputError) as caught:
        read(path, batch="donor", cell_type="typ", keep={"x": [1]}, hidden_batches=["c"])
    text = "\n".join(caught.value.problems)
    for words in ("cell_type is 'typ'", "keep.x is 'x'", "no batch 'c'", "fewer than 2 cells: b"):
        assert words in text


def test_problems_of_counts_and_of_columns_are_raised_together(tmp_path):
    adata = make(donor=list("aaabbb"))
    adata.X.data[0] = 0.5
    adata.obs_names = ["x", "x", "c", "d", "e", "f"]
    with pytest.raises(InputError) as caught:
        read(save(adata, tmp_path / "a.h5ad"), batch="doner")
    text = "\n".join(caught.value.problems)
    for words in ("not whole numbers", "did you mean 'donor'", "such as x"):
        assert words in text


def test_duplicate_barcodes_are_refused_within_a_sample(tmp_path):
    adata = make()
    adata.obs_names = ["a", "b", "a", "c", "d", "e"]
    path = save(adata, tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="1 barcodes occur more than once, such as a"):
        read(path)


def test_keep_comes_before_the_checks_of_batches(tmp_path):
    path = save(make(donor=list("aaabbc"), call=["SNG"] * 5 + ["DBL"]), tmp_path / "a.h5ad")
    found = read(path, batch="donor", keep={"call": ["SNG"]})
    check(found)
    assert set(found.obs["batch"]) == {"a", "b"}
    assert found.n_obs == 5


def test_small_batches_are_dropped_or_merged(tmp_path):
    path = save(make(donor=list("aaaabc")), tmp_path / "a.h5ad")
    dropped = read(path, Limits(2, "drop"), batch="donor")
    merged = read(path, Limits(2, "merge"), batch="donor")
    check(dropped)
    check(merged)
    assert dropped.obs["batch"].value_counts().to_dict() == {"a": 4}
    assert merged.obs["batch"].value_counts().to_dict() == {"a": 4, "merged": 2}


def test_annotations_bring_the_labels(tmp_path):
    path = save(make(), tmp_path / "a.h5ad")
    (tmp_path / "a.csv").write_text("cell,type\ncell0,T\ncell3,B\n")
    found = read(path, annotations=str(tmp_path / "a.csv"), cell_type="type")
    assert list(found.obs["cell_type"]) == ["T", *[UNKNOWN] * 2, "B", *[UNKNOWN] * 2]


def test_cells_without_counts_are_counted_and_left_for_quality_control(tmp_path, capsys):
    adata = make()
    adata.X = sparse.csr_matrix(np.vstack([np.zeros((2, 10)), np.ones((4, 10))]))
    assert read(save(adata, tmp_path / "a.h5ad")).n_obs == 6
    assert "WARNING 2 cells have no counts at all" in capsys.readouterr().out


@pytest.mark.parametrize("unlabelled", [0, 2])
def test_a_simulated_dataset_needs_no_columns_and_keeps_its_truth(unlabelled, tmp_path):
    labels = ["T", "B", "T", "B", "T", "B"]
    shown = [UNKNOWN] * unlabelled + labels[unlabelled:]
    adata = make(batch=list("aaabbb"), cell_type=shown, true_cell_type=labels)
    adata.obsm["true_z"] = np.ones((6, 2))
    adata.varm["true_log_fold_change"] = np.ones((10, 2))
    adata.var["true_theta"] = np.arange(10.0)
    found = read(save(adata, tmp_path / "a.h5ad"), source="simulate")
    check(found)
    assert list(found.obs["cell_type"]) == shown
    assert list(found.obs["true_cell_type"]) == labels
    assert "true_z" in found.obsm
    assert "true_log_fold_change" in found.varm
    assert list(found.var["true_theta"]) == list(range(10))


def write_folder(folder, n_cells, seed):
    folder.mkdir(parents=True)
    adata = make(n_cells, seed=seed)
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(adata.X.T), field="integer")
    (folder / "genes.tsv").write_text("".join(f"E{gene}\t{gene}\n" for gene in GENES))
    (folder / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in adata.obs_names))


def test_an_archive_of_folders_is_read_with_a_batch_for_each(tmp_path):
    for seed, name in enumerate(["s1", "s2"]):
        write_folder(tmp_path / "in" / name / "outs" / "filtered_gene_bc_matrices", 4, seed)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "run")
    found = read(str(tmp_path / "a.tar.gz"))
    check(found)
    assert found.obs["batch"].value_counts().to_dict() == {"s1": 4, "s2": 4}
    expected = np.vstack([make(4, seed=seed).X.toarray() for seed in (0, 1)])
    np.testing.assert_array_equal(found.X.toarray(), expected)


def test_an_archive_without_counts_is_refused(tmp_path):
    (tmp_path / "readme").write_text("nothing")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "readme", "readme")
    with pytest.raises(InputError, match="holds no 10x matrix"):
        read(str(tmp_path / "a.tar"))


def test_the_dataset_inside_scanpy_is_read_like_any_other():
    found = read("scanpy:pbmc68k_reduced", Limits(), cell_type="bulk_labels")
    check(found)
    assert found.shape == (700, 765)
    assert found.obs["cell_type"].nunique() == 10


@pytest.mark.parametrize(
    ("name", "shape", "entry"),
    [
        ("pbmc_labelled_4batch", (11_005, 8_908), {"batch": "batch", "unknown": "Unknown"}),
        ("kang_ifnb_2800", (2_800, 14_053), {"batch": "batch"}),
        ("sc_mixology_5batch", (1_021, 11_533), {"batch": "batch", "keep": {"demuxlet": ["SNG"]}}),
        ("pbmc3k", (2_638, 13_714), {}),
    ],
)
def test_real_counts_are_read(name, shape, entry, shared_data):
    found = read(str(shared_data / f"{name}.h5ad"), Limits(), cell_type="cell_type", **entry)
    check(found)
    assert found.shape == shape
