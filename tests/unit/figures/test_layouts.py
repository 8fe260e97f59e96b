import anndata
import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.data.store import UNKNOWN
from sclatent.figures import layouts
from sclatent.figures.layouts import Layout, plot_latents, plot_layouts
from sclatent.figures.style import colours, plt


def make_obs(n=60, types=("B", "T", UNKNOWN), batches=("one", "two")):
    rng = np.random.default_rng(0)
    index = [f"cell{i}" for i in range(n)]
    columns = {"cell_type": rng.choice(types, n), "batch": rng.choice(batches, n)}
    return pd.DataFrame(columns, index=index, dtype="category")


def make_layout(n=60, seeds=(0, 1, 2)):
    rng = np.random.default_rng(1)
    return Layout("umap", {s: rng.normal(size=(n, 2)) for s in seeds}, dict.fromkeys(seeds, 0.91))


@pytest.fixture
def figure():
    figure = plot_layouts(make_layout(), make_obs(), "scvi", 1000)
    yield figure
    plt.close(figure)


def test_each_seed_has_a_column_and_type_and_batch_a_row(figure):
    assert len(figure.axes) == 6
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == [
        "cell type",
        "batch",
    ]


def test_trustworthiness_is_printed_on_every_column(figure):
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == 3
    assert all("trustworthiness 0.910" in title for title in titles)


def test_the_footer_says_what_a_layout_is_for(figure):
    assert "no score or cluster is computed from it" in figure.get_supxlabel()


def test_colours_are_those_of_the_legend_and_of_all_figures(figure):
    legend = figure.axes[2].get_legend()
    names = [text.get_text().split(" (")[0] for text in legend.get_texts()]
    shown = {
        name: handle.get_color() for name, handle in zip(names, legend.legend_handles, strict=True)
    }
    assert shown == colours(["B", "T", UNKNOWN])


def test_no_more_cells_than_asked_are_drawn_and_the_footer_says_so():
    figure = plot_layouts(make_layout(), make_obs(), "scvi", 25)
    drawn = {len(axis.collections[0].get_offsets()) for axis in figure.axes}
    assert drawn == {25}
    assert "25 of 60 cells are drawn" in figure.get_supxlabel()
    plt.close(figure)


def test_cells_are_drawn_in_an_order_that_is_random_but_always_the_same():
    order = layouts.drawing_order(500, 400)
    assert (order == layouts.drawing_order(500, 400)).all()
    assert len(set(order)) == 400
    assert not (np.diff(order) > 0).all()


@pytest.mark.parametrize(
    ("types", "batches", "rows"),
    [(("B", "T"), ("one",), ["cell type"]), ((UNKNOWN,), ("one",), ["batch"])],
)
def test_a_row_of_one_colour_is_left_out(types, batches, rows):
    found = layouts.coloured_rows(make_obs(types=types, batches=batches))
    assert [name for name, _, _ in found] == rows


def test_every_latent_has_a_column_and_clusters_are_numbered():
    clusters = {name: np.arange(60) % 4 for name in ("pca", "scvi")}
    layouts_of = {name: make_layout() for name in clusters}
    figure = plot_latents(layouts_of, clusters, make_obs(), 1000)
    assert len(figure.axes) == 6
    last = figure.axes[-1]
    assert sorted(text.get_text() for text in last.texts) == ["0", "1", "2", "3"]
    plt.close(figure)


def test_a_layout_is_read_in_the_order_of_the_cells(tmp_path):
    layout = anndata.AnnData(obs=pd.DataFrame(index=["a", "b", "c"]))
    points = np.arange(6, dtype=np.float32).reshape(3, 2)
    layout.obsm["seed2"], layout.obsm["seed10"] = points, points + 1
    layout.uns["trustworthiness"] = {"seed2": 0.9, "seed10": 0.8}
    files.write_h5ad(tmp_path / "umap.h5ad", layout)
    found = layouts.read_layout(tmp_path / "umap.h5ad", ["c", "a", "b"], "umap")
    assert list(found.points) == [2, 10]
    assert found.trustworthiness == {2: 0.9, 10: 0.8}
    np.testing.assert_array_equal(found.first, points[[2, 0, 1]])


def test_long_legends_and_names_are_shortened():
    obs = make_obs(n=400, types=[f"a very long name of the cell type {i}" for i in range(60)])
    figure = plot_layouts(make_layout(400), obs, "scvi", 1000)
    legend = figure.axes[2].get_legend()
    assert len(legend.get_texts()) == layouts.LINES
    assert "more" in legend.get_title().get_text()
    assert max(len(layouts.shortened(name)) for name in obs["cell_type"]) <= 30
    plt.close(figure)
