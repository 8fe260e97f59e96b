"""Drop empty droplets, dying cells and doublets, batch by batch, and count what went why.

A cell is cut where a metric lies more than `n_mads` scaled median absolute deviations from the
median of its batch, on the log1p scale, or beyond a hard floor or ceiling. Counts and genes are cut
on both sides, mitochondrial and ribosomal shares above only: few of them is no fault.

The median and the deviation are those of the cells within the hard bounds, so that a file full of
empty droplets does not move them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sclatent.data.blocks import Dataset, Rows
from sclatent.data.columns import set_aside
from sclatent.data.covariates import check_kept
from sclatent.data.doublets import search_doublets
from sclatent.errors import InputError, problem

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MITOCHONDRIAL = r"(?i)^mt[-.]"
RIBOSOMAL = r"(?i)^rp(?:[ls]\d+(?!\d*k)|lp\d|sa$)"  # not the kinases RPS6K
SCALE = 1.4826  # makes the median absolute deviation of a normal distribution its sd
FEWEST = 10  # cells from which a median absolute deviation is taken
LARGE_LOSS = 0.5
SEED = 0  # of the simulated doublets; quality control comes before the repeats


class Rule(NamedTuple):
    """A reason to remove a cell: a metric beyond its bound on one side."""

    metric: str
    side: str
    limit: str = ""  # the field of Filters with the hard bound


RULES = {
    "few_counts": Rule("total_counts", "lower", "min_counts"),
    "many_counts": Rule("total_counts", "upper"),
    "few_genes": Rule("n_genes_by_counts", "lower", "min_genes"),
    "many_genes": Rule("n_genes_by_counts", "upper"),
    "high_mt": Rule("pct_counts_mt", "upper", "max_pct_mt"),
    "high_ribo": Rule("pct_counts_ribo", "upper", "max_pct_ribo"),
}
METRICS = tuple(dict.fromkeys(rule.metric for rule in RULES.values()))
SIGN = {"lower": -1, "upper": 1}


@dataclass(frozen=True)
class Filters:
    """Settings of the quality control; the schema describes each."""

    n_mads: float = 5
    min_counts: int = 200
    min_genes: int = 100
    max_pct_mt: float = 20
    max_pct_ribo: float = 100
    min_cells_per_gene: int = 3
    doublets: bool = True
    expected_doublet_rate: float = 0.06

    def limit(self, rule: Rule) -> float:
        """Return the hard bound of a rule; infinite where there is none or none can bind."""
        value = getattr(self, rule.limit) if rule.limit else np.inf * SIGN[rule.side]
        return np.inf if rule.metric.startswith("pct") and value >= 100 else value


class Filtered(NamedTuple):
    """The cells kept, the metrics of all, the bounds, and how many cells each rule removed."""

    cells: Dataset
    metrics: pd.DataFrame
    thresholds: pd.DataFrame
    removed: pd.DataFrame


def filter_cells(dataset: Dataset, filters: Filters, n_threads: int = 1) -> Filtered:
    """Measure and filter the cells of a dataset, then drop genes that are all but absent.

    Parameters
    ----------
    dataset
        Raw counts (B, G), with obs `batch`. They are read twice, in blocks, and three times more
        when doublets are searched.
    filters
        Bounds and settings.
    n_threads
        Of the search for doublets; the result does not depend on them.

    Returns
    -------
    Filtered
        `cells` has the metrics in obs; own columns of these names become `original_*`. In
        `metrics`, a removed cell's `reason` is the first rule that removes it.

    Raises
    ------
    InputError
        When no cell or no gene is left, with the number of cells that each rule removed; when a
        metric that is a covariate has missing values or is the same in every cell kept.
    """
    metrics = cell_metrics(dataset.counts, dataset.table.var_names)
    batch = dataset.table.obs["batch"].astype(str).to_numpy()
    bounds = thresholds(metrics, batch, filters)
    reason = first_reason(metrics, batch, bounds)
    metrics["doublet_score"] = np.nan
    if filters.doublets:
        expected = filters.expected_doublet_rate
        scores, called = search_doublets(
            dataset.counts, batch, reason == "", expected, SEED, n_threads=n_threads
        )
        metrics["doublet_score"] = scores
        reason[called] = "doublet"
    kept = reason == ""
    removed = count_removed(batch, reason)
    report(removed)
    cells = keep(dataset, kept, removed, filters)
    add_metrics(cells.table, metrics[kept])
    metrics.insert(0, "batch", batch)
    metrics.insert(0, "cell", np.asarray(dataset.table.obs_names))
    return Filtered(cells, metrics.assign(kept=kept, reason=reason), bounds, removed)


def cell_metrics(counts: Rows, names) -> pd.DataFrame:
    """Return counts, genes, and mitochondrial and ribosomal percent of each cell (B rows).

    The columns bear scanpy's names. A cell without counts has shares of zero.
    """
    import pandas as pd

    names = pd.Index(names).astype(str)
    sets = {}
    for name, pattern in (("mt", MITOCHONDRIAL), ("ribo", RIBOSOMAL)):
        genes = names.str.contains(pattern, regex=True)
        print(f"{genes.sum()} {name} genes" + ("" if genes.any() else ": their share is 0"))
        sets[f"pct_counts_{name}"] = genes.astype(np.int64)
    weights = np.column_stack([np.ones(len(names), dtype=np.int64), *sets.values()])
    sums, n_genes = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for block in counts:
        sums.append(block @ weights)
        n_genes.append(np.diff(block.indptr))
    total, *parts = np.concatenate(sums).T
    columns = {"total_counts": total, "n_genes_by_counts": np.concatenate(n_genes)}
    for name, part in zip(sets, parts, strict=True):
        columns[name] = 100 * part / np.maximum(total, 1)
    return pd.DataFrame(columns)


def thresholds(metrics: pd.DataFrame, batch: np.ndarray, filters: Filters) -> pd.DataFrame:
    """Return the bounds of each batch and metric, and where each comes from.

    Returns
    -------
    pandas.DataFrame
        `batch`, `metric`, `lower`, `upper` (empty where there is none), `lower_source` and
        `upper_source`: "mad", "floor", "ceiling" or "none".
    """
    import pandas as pd

    typical = np.ones(len(metrics), dtype=bool)
    for rule in RULES.values():
        typical &= ~beyond(metrics[rule.metric].to_numpy(), filters.limit(rule), rule.side)
    rows = []
    for name in np.unique(batch):
        for metric in METRICS:
            values = np.log1p(metrics.loc[typical & (batch == name), metric].to_numpy())
            row = {"batch": name, "metric": metric, "lower": np.nan, "upper": np.nan}
            row |= {"lower_source": "none", "upper_source": "none"}
            centre, spread = centre_and_spread(values, f"batch {name}: {metric}")
            for rule in RULES.values():
                if rule.metric == metric:
                    cut = np.expm1(min(700, centre + SIGN[rule.side] * filters.n_mads * spread))
                    cut = np.inf if metric.startswith("pct") and cut >= 100 else cut
                    value, source = tighter(filters.limit(rule), cut, rule.side)
                    row |= {rule.side: value, f"{rule.side}_source": source}
            rows.append(row)
    return pd.DataFrame(rows)


def centre_and_spread(values: np.ndarray, where: str) -> tuple[float, float]:
    """Return median and scaled median absolute deviation; an infinite one where it says nothing."""
    if len(values) < FEWEST:
        print(f"{where}: {len(values)} cells within the hard bounds are too few for a MAD bound")
        return 0.0, np.inf
    centre = np.median(values)
    spread = SCALE * np.median(np.abs(values - centre))
    if spread == 0 and values.any():
        print(f"{where}: more than half of the cells are equal, so there is no MAD bound")
    return centre, spread or np.inf


def tighter(hard: float, cut: float, side: str) -> tuple[float, str]:
    """Return the tighter of a hard and a MAD bound, and its source."""
    sign = SIGN[side]
    cut = cut if 0 <= cut < np.exp(600) else sign * np.inf
    if np.isinf(hard) and np.isinf(cut):
        return np.nan, "none"
    if sign * cut < sign * hard:
        return float(cut), "mad"
    return float(hard), {"lower": "floor", "upper": "ceiling"}[side]


def beyond(values: np.ndarray, bound, side: str) -> np.ndarray:
    """Return which values lie beyond a bound; NaN and infinite bounds bound nothing."""
    return SIGN[side] * values > SIGN[side] * np.asarray(bound, dtype=float)


def first_reason(metrics: pd.DataFrame, batch: np.ndarray, bounds: pd.DataFrame) -> np.ndarray:
    """Return the first rule that removes each cell (B,), empty for those kept."""
    reason = np.full(len(batch), "", dtype=object)
    for name, rule in RULES.items():
        bound = bounds[bounds["metric"] == rule.metric].set_index("batch")[rule.side]
        out = beyond(metrics[rule.metric].to_numpy(), bound.loc[batch].to_numpy(), rule.side)
        reason[out & (reason == "")] = name
    return reason


def count_removed(batch: np.ndarray, reason: np.ndarray) -> pd.DataFrame:
    """Return how many cells of each batch, and of all, each rule removed."""
    import pandas as pd

    rows = []
    for name in [*np.unique(batch), "all"]:
        mine = reason[(batch == name) | (name == "all")]
        counts = {"before": len(mine)}
        counts |= {rule: (mine == rule).sum() for rule in [*RULES, "doublet"]}
        counts |= {"kept": (mine == "").sum()}
        rows += [(name, rule, n, n / max(len(mine), 1)) for rule, n in counts.items()]
    return pd.DataFrame(rows, columns=["batch", "rule", "n_cells", "share"])


def report(removed: pd.DataFrame) -> None:
    """Print what was kept of each batch and why the rest went; warn of large losses."""
    for name, part in removed.groupby("batch", sort=False):
        n = part.set_index("rule")["n_cells"]
        why = ", ".join(f"{rule} {n[rule]:,}" for rule in [*RULES, "doublet"] if n[rule])
        print(f"{name}: kept {n['kept']:,} of {n['before']:,} cells" + (f" ({why})" if why else ""))
        if name != "all" and n["kept"] < (1 - LARGE_LOSS) * n["before"]:
            print(f"WARNING batch {name} lost more than half of its cells: look at its figure")


def keep(dataset: Dataset, kept: np.ndarray, removed: pd.DataFrame, filters: Filters) -> Dataset:
    """Return the cells kept and the genes found in enough of them."""
    if not kept.any():
        n = removed[removed["batch"] == "all"].set_index("rule")["n_cells"]
        why = ", ".join(f"{rule} {n[rule]:,}" for rule in [*RULES, "doublet"] if n[rule])
        what = f"no cell of {len(kept):,} is left; removed by {why}"
        raise InputError(problem("E235", "qc", what, "widen the bounds that removed most"))
    counts = dataset.counts.keep(kept)
    in_cells = sum(np.bincount(block.indices, minlength=counts.shape[1]) for block in counts)
    found = in_cells >= filters.min_cells_per_gene
    if not found.any():
        what = f"no gene is found in {filters.min_cells_per_gene} of {kept.sum():,} kept cells"
        raise InputError(problem("E236", "qc.min_cells_per_gene", what, "lower it"))
    print(
        f"kept {found.sum():,} of {len(found):,} genes, those in at least "
        f"{filters.min_cells_per_gene} cells"
    )
    table = dataset.table[kept, found].copy()
    for name in table.obs.select_dtypes("category"):
        table.obs[name] = table.obs[name].cat.remove_unused_categories()
    return Dataset(table, counts.keep(genes=np.flatnonzero(found)))


def add_metrics(cells: AnnData, metrics: pd.DataFrame) -> None:
    """Put the metrics of the cells kept into their obs, and check the covariates of these cells."""
    cells.obs = set_aside(cells.obs, metrics.columns)
    cells.obs[list(metrics)] = metrics.to_numpy()
    cells.obs = cells.obs.astype(dict.fromkeys(METRICS[:2], int))
    check_kept(cells)
