from dataclasses import asdict, replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from sclatent.data import qc
from sclatent.data.blocks import from_anndata, in_memory
from sclatent.data.qc import RULES, Filters, cell_metrics, thresholds
from sclatent.data.simulate import Simulation, simulate
from sclatent.errors import InputError

WIDE = Filters(n_mads=1e6, min_counts=1, min_genes=1, max_pct_mt=100, doublets=False)


def filter_cells(adata, filters):
    """Filter cells in memory, and return what is kept as an AnnData."""
    filtered = qc.filter_cells(from_anndata(adata), filters)
    return filtered._replace(cells=filtered.cells.to_anndata())


@pytest.fixture(scope="module")
def adata():
    return simulate(Simulation(n_cells=600, n_genes=400, low_quality=0.1, unlabelled=0.0))


def table(**columns):
    n = len(next(iter(columns.values())))
    base = {
        "total_counts": np.full(n, 2000),
        "n_genes_by_counts": np.full(n, 900),
        "pct_counts_mt": np.full(n, 3.0),
        "pct_counts_ribo": np.full(n, 20.0),
    }
    return pd.DataFrame(base | columns)


def bound(bounds, metric, column, batch="a"):
    row = bounds[(bounds["batch"] == batch) & (bounds["metric"] == metric)]
    return row[column].item()


def test_the_settings_are_those_of_the_schema(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    keys = schema["properties"]["qc"]["properties"]
    assert {key: value["default"] for key, value in keys.items()} == asdict(Filters())


def test_metrics_are_those_of_scanpy(adata):
    import scanpy as sc

    theirs = adata.copy()
    theirs.var["mt"] = theirs.var_names.str.startswith("MT-")
    theirs.var["ribo"] = theirs.var_names.str.startswith(("RPL", "RPS"))
    sc.pp.calculate_qc_metrics(theirs, qc_vars=["mt", "ribo"], percent_top=None, inplace=True)
    ours = cell_metrics(in_memory(adata.X), adata.var_names)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs.obs[name], rtol=1e-5)


def test_gene_names_of_people_mice_and_r_are_known():
    names = ["MT-CO1", "mt-Nd1", "MT.ND2", "MT1A", "MTOR", "RPL3", "Rps27a", "RPLP0", "RPSA"]
    names += ["RPS6KA1", "RPS4X", "RPL36AL"]
    counts = sp.csr_matrix(np.eye(len(names), dtype=np.int32))
    metrics = cell_metrics(in_memory(counts), names)
    assert [n for n, pct in zip(names, metrics["pct_counts_mt"], strict=True) if pct] == names[:3]
    ribo = [n for n, pct in zip(names, metrics["pct_counts_ribo"], strict=True) if pct]
    assert ribo == ["RPL3", "Rps27a", "RPLP0", "RPSA", "RPS4X", "RPL36AL"]


def test_an_empty_cell_has_shares_of_zero():
    metrics = cell_metrics(in_memory(sp.csr_matrix((2, 3), dtype=np.int32)), ["MT-A", "b", "c"])
    assert (metrics == 0).all(axis=None)


def test_bounds_are_median_and_mads_on_the_log_scale():
    counts = np.exp(np.random.default_rng(0).normal(8, 0.3, 500)).astype(int)
    bounds = thresholds(table(total_counts=counts), np.full(500, "a"), Filters(n_mads=3))
    log = np.log1p(counts)
    mad = 1.4826 * np.median(np.abs(log - np.median(log)))
    for side, sign in (("lower", -1), ("upper", 1)):
        expected = np.expm1(np.median(log) + sign * 3 * mad)
        assert bound(bounds, "total_counts", side) == pytest.approx(expected)
        assert bound(bounds, "total_counts", f"{side}_source") == "mad"
    assert mad == pytest.approx(0.3, rel=0.15)


def test_shares_are_cut_above_only():
    shares = np.exp(np.random.default_rng(0).normal(1, 0.2, 300))
    bounds = thresholds(table(pct_counts_mt=shares), np.full(300, "a"), Filters())
    assert np.isnan(bound(bounds, "pct_counts_mt", "lower"))
    assert bound(bounds, "pct_counts_mt", "lower_source") == "none"
    assert bound(bounds, "pct_counts_mt", "upper") < 20


def test_the_tighter_of_hard_and_mad_bounds_counts():
    counts = np.exp(np.random.default_rng(0).normal(6, 0.8, 300)).astype(int)
    batch = np.full(300, "a")
    bounds = thresholds(table(total_counts=counts), batch, Filters())
    assert bound(bounds, "total_counts", "lower") == 200
    assert bound(bounds, "total_counts", "lower_source") == "floor"
    shares = np.linspace(1, 15, 300)
    bounds = thresholds(table(pct_counts_mt=shares), batch, Filters())
    assert bound(bounds, "pct_counts_mt", "upper") == 20
    assert bound(bounds, "pct_counts_mt", "upper_source") == "ceiling"


def test_a_mad_of_zero_sets_no_bound_and_is_said(capsys):
    counts = np.r_[np.full(50, 1000), 5, 90_000]
    bounds = thresholds(table(total_counts=counts), np.full(52, "a"), Filters())
    assert "batch a: total_counts: more than half of the cells are equal" in capsys.readouterr().out
    assert bound(bounds, "total_counts", "lower_source") == "floor"
    assert bound(bounds, "total_counts", "upper_source") == "none"


def test_each_batch_has_its_own_bounds():
    rng = np.random.default_rng(0)
    counts = np.exp(np.r_[rng.normal(7, 0.2, 100), rng.normal(9, 0.2, 100)]).astype(int)
    bounds = thresholds(table(total_counts=counts), np.repeat(["a", "b"], 100), Filters())
    upper, lower = (
        bound(bounds, "total_counts", "upper"),
        bound(bounds, "total_counts", "lower", "b"),
    )
    assert upper < lower


def test_empty_droplets_do_not_move_the_median():
    cells = np.exp(np.random.default_rng(0).normal(8, 0.3, 200)).astype(int)
    alone = thresholds(table(total_counts=cells), np.full(200, "a"), Filters())
    droplets = np.r_[cells, np.random.default_rng(1).integers(0, 50, 2000)]
    among = thresholds(table(total_counts=droplets), np.full(2200, "a"), Filters())
    assert bound(among, "total_counts", "lower") == bound(alone, "total_counts", "lower")


def test_dying_cells_go_and_good_ones_stay(adata):
    filtered = filter_cells(adata, replace(Filters(), doublets=False))
    kept = filtered.metrics["kept"].to_numpy()
    dying = (adata.obs["true_quality"] == "dying").to_numpy()
    assert kept[~dying].mean() > 0.97
    assert kept[dying].mean() < 0.2


def test_every_cell_is_counted_once_under_the_first_rule_that_removes_it(adata):
    filtered = filter_cells(adata, Filters(max_pct_mt=6, min_counts=900))
    wide = filtered.removed.pivot(index="batch", columns="rule", values="n_cells")
    rules = [*RULES, "doublet", "kept"]
    assert (wide[rules].sum(axis=1) == wide["before"]).all()
    assert (wide.drop("all").sum() == wide.loc["all"]).all()
    assert wide.loc["all", "kept"] == filtered.cells.n_obs == filtered.metrics["kept"].sum()
    first = filtered.removed.groupby("batch", sort=False)["rule"].agg(["first", "last"])
    assert set(map(tuple, first.to_numpy())) == {("before", "kept")}
    few = filtered.metrics["total_counts"] < 900
    assert (filtered.metrics.loc[few, "reason"] == "few_counts").all()


def test_kept_cells_carry_their_metrics_and_their_order(adata):
    filtered = filter_cells(adata, Filters())
    metrics = filtered.metrics[filtered.metrics["kept"]]
    assert list(filtered.cells.obs_names) == list(metrics["cell"])
    for name in ("total_counts", "n_genes_by_counts", "pct_counts_mt", "doublet_score"):
        np.testing.assert_allclose(filtered.cells.obs[name], metrics[name])
    assert filtered.cells.X.dtype == np.int32
    assert filtered.cells.X.has_sorted_indices
    assert metrics["doublet_score"].notna().all()


def test_a_gene_in_too_few_kept_cells_is_dropped(adata):
    filtered = filter_cells(adata, replace(WIDE, min_cells_per_gene=50))
    in_cells = np.bincount(adata.X.indices, minlength=adata.n_vars)
    assert list(filtered.cells.var_names) == list(adata.var_names[in_cells >= 50])


def test_wide_bounds_keep_every_cell(adata):
    assert filter_cells(adata, WIDE).metrics["kept"].all()


def test_no_cell_left_is_an_error_with_the_count_of_each_rule(adata):
    with pytest.raises(InputError, match="no cell of 600 is left; removed by few_counts 600"):
        filter_cells(adata, Filters(min_counts=10**6))


def test_no_gene_left_is_an_error(adata):
    with pytest.raises(InputError, match="no gene is found in 601"):
        filter_cells(adata, replace(WIDE, min_cells_per_gene=601))


def test_a_batch_that_loses_most_cells_warns_and_an_emptied_one_is_gone(adata, capsys):
    poor = adata.copy()
    poor.X[(poor.obs["batch"] == "batch1").to_numpy()] *= 0
    poor.X.eliminate_zeros()
    cells = filter_cells(poor, replace(Filters(), doublets=False)).cells
    assert "WARNING batch batch1 lost more than half" in capsys.readouterr().out
    assert list(cells.obs["batch"].cat.categories) == ["batch2", "batch3"]


def test_the_users_own_columns_are_kept():
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(3, (30, 20)).astype(np.int32))
    obs = pd.DataFrame({"batch": pd.Categorical(["b"] * 30), "donor": range(30)})
    obs.index = obs.index.map("c{}".format)
    cells = filter_cells(anndata.AnnData(counts, obs=obs), WIDE).cells
    assert list(cells.obs["donor"]) == list(range(30))
