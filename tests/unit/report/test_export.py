import json
from itertools import product

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclatent import files
from sclatent.baselines.pca import log_normalise
from sclatent.data.blocks import open_dataset, write_dataset
from sclatent.data.store import UNKNOWN
from sclatent.report.export import gather, slot


def export(results, main="scvi", loadings=None):
    folder, names = results.folder, results.latents
    pairs = list(product(names, ["umap"]))
    return gather(
        open_dataset(folder / "data/cells.h5ad", splits=folder / "data/splits/seed0.tsv.gz"),
        genes=folder / "data/genes/seed0.tsv",
        latents={name: folder / f"latent/{name}/seed0.h5ad" for name in names},
        labels={name: folder / f"labels/{name}/seed0.tsv.gz" for name in results.classifiers},
        clusters={name: folder / f"cells/{name}/seed0/clusters.tsv.gz" for name in names},
        layouts={(a, b): folder / f"cells/{a}/seed0/{b}.h5ad" for a, b in pairs},
        loadings=loadings or {},
        main={"dataset": "pbmc", "seed": 0, "latent": main, "resolution": 1},
    )


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "pbmc.h5ad"
    write_dataset(path, export(results))
    return path


@pytest.fixture
def dataset(path):
    return anndata.read_h5ad(path)


def test_x_is_what_scanpy_makes_of_the_counts(dataset):
    import scanpy

    counts = anndata.AnnData(dataset.layers["counts"].astype(np.float32))
    scanpy.pp.normalize_total(counts, target_sum=1e4)
    scanpy.pp.log1p(counts)
    assert dataset.X.dtype == np.float32
    np.testing.assert_allclose(dataset.X.toarray(), counts.X.toarray(), rtol=1e-5)


def test_counts_are_those_that_came_in(dataset, results):
    counts = dataset.layers["counts"]
    assert counts.dtype == np.int32
    assert sparse.issparse(counts)
    assert (counts != results.cells.X).nnz == 0


def test_an_empty_cell_stays_empty():
    counts = sparse.csr_matrix(np.array([[0, 0], [1, 3]], dtype=np.int32))
    assert not log_normalise(counts, np.array([0, 4])).toarray()[0].any()


def test_latents_have_the_names_of_the_ecosystem(dataset):
    assert {"X_pca", "X_pca_harmony", "X_scVI", "X_scANVI"} <= set(dataset.obsm)
    assert slot("mine") == "X_mine"


def test_the_main_latent_has_the_plain_names(dataset):
    assert {"X_umap", "X_umap_pca", "X_umap_harmony", "X_umap_scanvi"} <= set(dataset.obsm)
    assert "X_umap_scvi" not in dataset.obsm
    assert (dataset.obs["leiden"].astype(str) == dataset.obs["leiden_scvi_1.0"].astype(str)).all()


def test_values_are_joined_by_the_name_of_the_cell(dataset, results):
    path = results.folder / "latent/pca/seed0.h5ad"
    latent = anndata.read_h5ad(path)
    assert list(latent.obs_names) != list(dataset.obs_names)
    expected = latent[dataset.obs_names].X
    np.testing.assert_array_equal(dataset.obsm["X_pca"], expected)


def test_observed_labels_are_never_overwritten(dataset, results):
    assert (dataset.obs["cell_type"] == results.cells.obs["cell_type"]).all()
    unknown = dataset.obs["cell_type"] == UNKNOWN
    assert unknown.any()
    assert (dataset.obs.loc[unknown, "predicted_scanvi"].astype(str) != UNKNOWN).all()


def test_probabilities_belong_to_the_named_classes(dataset):
    shares = dataset.obsm["scanvi_probabilities"]
    classes = dataset.uns["scanvi_classes"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert (classes[shares.argmax(axis=1)] == dataset.obs["predicted_scanvi"].astype(str)).all()
    np.testing.assert_allclose(
        shares.max(axis=1), dataset.obs["predicted_scanvi_probability"], rtol=1e-5
    )


def test_a_column_of_the_user_is_kept_beside_ours(dataset):
    assert set(dataset.obs["original_leiden"]) == {"mine"}


def test_clusters_are_sorted_as_numbers(dataset):
    assert list(dataset.obs["leiden"].cat.categories) == [str(number) for number in range(12)]


def test_highly_variable_genes_are_those_of_the_table(dataset, results):
    genes = files.read_table(results.folder / "data/genes/seed0.tsv")["gene"]
    assert set(dataset.var_names[dataset.var["highly_variable"]]) == set(genes)


def test_the_file_says_what_it_holds(dataset):
    content = json.loads(dataset.uns["sclatent"])
    assert content["format"] == 1
    assert content["dataset"] == "pbmc"
    assert "10,000" in content["X"]
    assert content["latents"]["scvi"] == "X_scVI"


def test_the_rules_of_cellxgene_are_kept(dataset):
    # chanzuckerberg/single-cell-curation, schema 5.1: unique names, arrays in obsm, finite
    assert dataset.obs_names.is_unique
    assert dataset.var_names.is_unique
    assert isinstance(dataset.X, sparse.csr_matrix)
    assert dataset.raw is None
    for key, values in dataset.obsm.items():
        assert type(values) is np.ndarray, key
        assert values.shape[0] == dataset.n_obs
        assert np.isfinite(values).all()
        assert values.dtype == np.float32
        if key.startswith("X_"):
            assert values.shape[1] >= 2
            assert key[2].isalpha()
    for column in dataset.obs:
        kind = dataset.obs[column].dtype
        assert isinstance(kind, pd.CategoricalDtype) or kind.kind in "biuf", column
    for column in ("cell_type", "batch"):
        n_categories = len(dataset.obs[column].cat.categories)
        assert len(dataset.uns[f"{column}_colors"]) == n_categories
    assert all(np.size(value) for value in dataset.uns.values())


# scanpy 1.11 calls what matplotlib 3.11 will deprecate
@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")
def test_scanpy_plots_and_tests_with_it(dataset):
    import matplotlib.pyplot as plt
    import scanpy

    axes = scanpy.pl.umap(dataset, color=["cell_type", "leiden", "gene0"], show=False)
    assert len(axes) == 3
    plt.close("all")
    scanpy.tl.rank_genes_groups(dataset, "cell_type", method="t-test", n_genes=3)
    scanpy.pp.neighbors(dataset, use_rep="X_scVI", n_neighbors=5)


def test_equal_input_gives_equal_bytes(results, path, tmp_path):
    write_dataset(tmp_path / "again.h5ad", export(results))
    assert files.sha256(tmp_path / "again.h5ad") == files.sha256(path)


def test_a_dataset_without_labels_has_no_predictions(make_results, tmp_path):
    made = make_results(tmp_path, types=(UNKNOWN,), latents=("pca", "scvi"), n_cells=40)
    dataset = export(made, main="pca").table
    assert not [column for column in dataset.obs if column.startswith("predicted")]
    assert "X_umap_scvi" in dataset.obsm


def test_loadings_stand_at_their_genes(results, tmp_path):
    genes = list(results.cells.var_names[[7, 3]])
    table = pd.DataFrame({"gene": genes, "1": [0.5, -1.0], "2": [0.25, 2.0]})
    files.write_table(tmp_path / "loadings.tsv", table)
    dataset = export(results, loadings={"scvi_linear": tmp_path / "loadings.tsv"})
    found = dataset.table.varm["X_scVI_linear_loadings"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[7, 3]], [[0.5, 0.25], [-1, 2]])
    assert np.isnan(np.delete(found, [7, 3], 0)).all()


def test_without_a_linear_decoder_there_are_no_loadings(dataset):
    assert not dataset.varm
