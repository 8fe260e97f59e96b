from dataclasses import replace

import numpy as np
import pytest

from sclatent import files
from sclatent.data.blocks import from_anndata
from sclatent.data.qc import RULES as REASONS
from sclatent.data.qc import Filters, filter_cells
from sclatent.data.simulate import Simulation, simulate
from sclatent.figures import qc
from sclatent.figures.qc import PANELS, RULES, plot_qc
from sclatent.figures.style import CUT_COLOUR, plt, write_figure


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qc")
    adata = simulate(Simulation(n_cells=600, n_genes=300, low_quality=0.1))
    result = filter_cells(from_anndata(adata), Filters())
    files.write_table(folder / "qc.tsv.gz", result.metrics)
    files.write_table(folder / "thresholds.tsv", result.thresholds)
    return files.read_table(folder / "qc.tsv.gz"), files.read_table(folder / "thresholds.tsv")


@pytest.fixture
def panels(filtered):
    figure = plot_qc(*filtered)
    yield figure.axes
    plt.close(figure)


def test_every_panel_has_a_title_and_a_unit(panels):
    assert len(panels) == len(PANELS) + 1
    for panel in panels:
        assert panel.get_title()
        assert panel.get_ylabel()
        assert [tick.get_text() for tick in panel.get_xticklabels()] == [
            "batch1",
            "batch2",
            "batch3",
        ]


def test_every_bound_is_drawn_where_the_table_puts_it(panels, filtered):
    thresholds = filtered[1]
    for panel, metric in zip(panels, PANELS, strict=False):
        drawn = sorted(
            line.get_ydata()[0] for line in panel.lines if line.get_color() == CUT_COLOUR
        )
        mine = thresholds[thresholds["metric"] == metric]
        expected = np.sort(mine[["lower", "upper"]].to_numpy().ravel())
        np.testing.assert_allclose(drawn, expected[~np.isnan(expected)])


def test_the_bars_hold_the_share_removed(panels, filtered):
    metrics = filtered[0]
    height = sum(bar.get_height() for bar in panels[-1].patches)
    removed = 100 * (~metrics["kept"]).groupby(metrics["batch"]).mean().sum()
    assert height == pytest.approx(removed)


def test_every_reason_has_a_name():
    assert set(RULES) == {*REASONS, "doublet"}


def test_what_was_not_measured_is_said(filtered):
    metrics, thresholds = filtered
    metrics = metrics.assign(pct_counts_mt=0.0, doublet_score=np.nan)
    figure = plot_qc(metrics, thresholds[thresholds["metric"] != "pct_counts_mt"])
    words = [text.get_text() for panel in figure.axes for text in panel.texts]
    assert qc.NOTHING["pct_counts_mt"] in words
    assert qc.NOTHING["doublet_score"] in words
    plt.close(figure)


@pytest.mark.parametrize("n_batches", [1, 8, 20])
def test_any_number_of_batches_is_drawn(n_batches, tmp_path):
    settings = Simulation(n_cells=400, n_genes=150, n_batches=n_batches, n_types=2)
    adata = simulate(settings)
    result = filter_cells(from_anndata(adata), replace(Filters(min_genes=20), doublets=False))
    figure = plot_qc(result.metrics, result.thresholds)
    assert len(figure.axes[0].get_xticklabels()) == n_batches
    write_figure(tmp_path / "qc.png", figure)
    assert (tmp_path / "qc.png").stat().st_size > 10_000
