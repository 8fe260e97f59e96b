"""Layouts: shapes, seeds, starts, trustworthiness."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from sclatent.cells import layout
from sclatent.cells.graph import GraphSettings, build_graph
from sclatent.cells.layout import LayoutSettings, lay_out_tsne, lay_out_umap

NAMES = [f"c{i}" for i in range(240)]


@pytest.fixture(scope="module")
def latent():
    rng = np.random.default_rng(0)
    return (np.eye(3, 6)[np.repeat(np.arange(3), 80)] * 6 + rng.normal(size=(240, 6))).astype("f4")


@pytest.fixture(scope="module")
def graph(latent):
    return build_graph(latent, NAMES, GraphSettings(), seed=0)


@pytest.fixture(scope="module")
def umap(latent, graph):
    return lay_out_umap(latent, graph, LayoutSettings(seeds=(0, 1)))


@pytest.fixture(scope="module")
def tsne(latent):
    return lay_out_tsne(latent, NAMES, LayoutSettings(seeds=(0, 1)))


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_every_seed_has_its_own_trustworthy_layout(method, request, latent):
    found = request.getfixturevalue(method)
    assert found.obs_names.tolist() == NAMES
    assert set(found.obsm) == {"seed0", "seed1"}
    assert not np.allclose(found.obsm["seed0"], found.obsm["seed1"], atol=1e-2)
    for seed, value in found.uns["trustworthiness"].items():
        assert found.obsm[seed].shape == (240, 2)
        assert found.obsm[seed].dtype == np.float32
        assert value == pytest.approx(trustworthiness(latent, found.obsm[seed], n_neighbors=15))
        assert value > 0.8


def test_equal_seeds_give_equal_layouts(umap, latent, graph):
    again = lay_out_umap(latent, graph, LayoutSettings(seeds=(1,)))
    np.testing.assert_array_equal(again.obsm["seed1"], umap.obsm["seed1"])


def test_laying_out_leaves_the_graph_as_it_is(latent, graph):
    before = graph.connectivities.copy()
    lay_out_umap(latent, graph, LayoutSettings(seeds=(0,)))
    assert (before != graph.connectivities).nnz == 0


def test_a_layout_comes_back_from_its_file(umap, tmp_path):
    import anndata

    layout.write_layout(tmp_path / "umap.h5ad", umap)
    back = anndata.read_h5ad(tmp_path / "umap.h5ad")
    np.testing.assert_array_equal(back.obsm["seed1"], umap.obsm["seed1"])
    assert back.uns["trustworthiness"]["seed0"] == umap.uns["trustworthiness"]["seed0"]


def test_unconnected_groups_are_laid_out(capsys):
    rng = np.random.default_rng(1)
    latent = np.eye(3, 6)[np.repeat(np.arange(3), 80)] * 500 + rng.normal(size=(240, 6))
    graph = build_graph(latent.astype(np.float32), NAMES, GraphSettings(), seed=0)
    found = lay_out_umap(latent.astype(np.float32), graph, LayoutSettings(seeds=(0,)))
    assert "3 connected part(s)" in capsys.readouterr().out
    assert np.isfinite(found.obsm["seed0"]).all()


def test_umap_starts_from_principal_components_where_the_spectrum_fails(
    latent, graph, monkeypatch, capsys
):
    def fail(*_args, **_kwargs):
        raise ValueError("no convergence")

    monkeypatch.setattr("umap.spectral.spectral_layout", fail)
    start = layout.spectral_start(latent, graph)
    assert "WARNING no spectral start (no convergence)" in capsys.readouterr().out
    variance = np.linalg.eigvalsh(np.cov(latent.T))[:-3:-1]
    np.testing.assert_allclose(start.var(axis=0, ddof=1), variance, rtol=1e-3)


def test_above_a_limit_umap_starts_from_principal_components(latent, graph, monkeypatch, capsys):
    monkeypatch.setattr(layout, "SPECTRAL_UP_TO", 239)
    start = layout.spectral_start(latent, graph)
    np.testing.assert_array_equal(start, layout.principal_plane(latent))
    assert "above 239 cells" in capsys.readouterr().out


def test_above_a_limit_only_the_first_seed_is_laid_out(capsys):
    settings = LayoutSettings(seeds=(3, 1, 2), several_up_to=100)
    assert settings.shown(100) == (3, 1, 2)
    assert settings.shown(101) == (3,)
    assert "one layout, not 3" in capsys.readouterr().out


def test_many_cells_are_judged_on_a_sample(monkeypatch, latent):
    monkeypatch.setattr(layout, "N_JUDGED", 100)
    assert layout.judge(latent, latent[:, :2]) == layout.judge(latent, latent[:, :2])
    assert 0.5 < layout.judge(latent, latent[:, :2]) < 1
