"""What stages after the reader make of datasets at the edge."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest

from sclatent.data import genes, qc
from sclatent.data.blocks import from_anndata, in_memory
from sclatent.errors import InputError
from sclatent.labels.transfer import TransferSettings, transfer_labels
from sclatent.training.loader import seen_labels
from sclatent.training.order import slices

WIDE = {"n_mads": 1e6, "min_counts": 1, "min_genes": 1, "max_pct_mt": 100, "doublets": False}


@pytest.fixture
def dataset():
    """Forty cells, of which four are empty."""
    counts = np.random.default_rng(0).poisson(2, (40, 30)).astype(np.int32)
    counts[:4] = 0
    obs = pd.DataFrame({"batch": "a", "cell_type": "Unknown"}, [f"cell{i}" for i in range(40)])
    obs = obs.astype("category")
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))
    return from_anndata(adata)


def test_case_10_cells_without_counts_are_dropped_and_counted(dataset, capsys):
    filtered = qc.filter_cells(dataset, qc.Filters(**WIDE))
    assert len(filtered.cells.obs) == 36
    assert re.search(r"\b4\b", capsys.readouterr().out)


def test_case_12_no_cell_left_is_an_error_with_what_each_filter_removed(dataset):
    filters = qc.Filters(**{**WIDE, "min_counts": 10**6})
    with pytest.raises(InputError, match=r"E235 .*no cell of 40 is left; removed by few_counts 40"):
        qc.filter_cells(dataset, filters)


def test_case_13_fewer_genes_than_asked_for_are_all_taken_with_a_warning(dataset, capsys):
    counts = in_memory(dataset.counts.to_csr()[4:])
    names, batch = dataset.table.var_names, np.repeat("a", 36)
    found = genes.select_genes(counts, names, batch, genes.Selection(n_top=2000))
    assert len(found) == 30
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.parametrize("n_cells", [129, 257, 2, 128])
def test_case_43_no_minibatch_has_a_single_cell(n_cells):
    parts = [part.stop - part.start for part in slices(n_cells, 128)]
    assert min(parts) > 1
    assert sum(parts) == n_cells


def test_case_34_without_labels_only_what_needs_them_is_an_error(dataset, capsys):
    adata = dataset.to_anndata()
    adata.obs["cells_split"], adata.obs["labels_split"] = "train", "unknown"
    with pytest.raises(InputError, match=r"E206 .*none of 40 cells .* Fix: .*out of latents"):
        seen_labels(adata, min_cells=2)
    labels, learnt = adata.obs["cell_type"].to_numpy(str), np.zeros(40, bool)
    for classifier in ("logistic", "knn"):
        found = transfer_labels(np.eye(40), labels, learnt, classifier, TransferSettings())
        assert (found[0].tolist(), found[1].tolist()) == (["Unknown"], [[1]] * 40)
    assert "WARNING none of 40 cells has a label" in capsys.readouterr().out


def test_case_37_a_label_of_one_cell_is_no_class_to_learn(dataset):
    adata = dataset.to_anndata()[4:].copy()
    adata.obs["cell_type"] = ["rare", *"TB" * 17, "T"]
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    adata.obs["cells_split"] = adata.obs["labels_split"] = "train"
    codes, classes = seen_labels(adata, min_cells=2)
    assert classes == ["B", "T"]
    assert codes[0] == -1
    assert (codes[1:] >= 0).all()
