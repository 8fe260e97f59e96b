from dataclasses import asdict, replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from sclatent.data import blocks
from sclatent.data.blocks import in_memory
from sclatent.data.genes import Selection, select_genes, standardised_variance
from sclatent.data.simulate import Simulation, simulate


@pytest.fixture(scope="module")
def adata():
    return simulate(Simulation(n_cells=900, n_genes=600, low_quality=0.0, type_strength=1.5))


def chosen(adata, **settings):
    selection = replace(Selection(n_top=100), **settings)
    return select_genes(in_memory(adata.X), adata.var_names, adata.obs["batch"], selection)


def variance_of(counts, name):
    """Return the standardised variance of cells of one batch."""
    one = np.zeros(counts.shape[0], dtype=int)
    return standardised_variance(in_memory(counts), one, [name])[0][0]


def test_the_settings_are_those_of_the_schema(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    keys = schema["properties"]["genes"]["properties"]
    assert {key: value["default"] for key, value in keys.items()} == asdict(Selection())


def test_the_genes_are_those_of_scanpy(adata):
    import scanpy as sc

    theirs = sc.pp.highly_variable_genes(
        anndata.AnnData(adata.X, obs=adata.obs[["batch"]], var=adata.var[[]]),
        n_top_genes=100,
        flavor="seurat_v3_paper",
        batch_key="batch",
        inplace=False,
    )
    ours = chosen(adata)
    ranked = theirs[theirs["highly_variable"]]
    assert set(ours["gene"]) == set(ranked.index)
    both = ranked.loc[ours["gene"]]
    np.testing.assert_array_equal(both["highly_variable_nbatches"], ours["n_batches"])
    np.testing.assert_allclose(both["highly_variable_rank"], ours["median_rank"])


def test_differential_genes_come_first(adata):
    strong = (adata.varm["true_log_fold_change"].abs() > 1).sum(axis=1) > 0
    abundant = adata.var["true_share"] > 1e-3
    assert strong[chosen(adata)["gene"]].mean() > 2.5 * strong.mean()
    missed = set(strong.index[strong & abundant]) - set(chosen(adata, n_top=200)["gene"])
    assert len(missed) < 0.25 * (strong & abundant).sum()


def test_scores_fall_down_the_table(adata):
    assert chosen(adata)["score"].is_monotonic_decreasing
    assert chosen(adata)["gene"].is_unique


def test_a_small_batch_does_not_rank_and_that_is_said(adata, capsys):
    batch = adata.obs["batch"].astype(str).to_numpy()
    keep = np.flatnonzero((batch != "batch1") | (np.cumsum(batch == "batch1") <= 40))
    part = adata[keep]
    table = chosen(part)
    assert "batch batch1 does not rank genes: 40 training cells of at least 100" in (
        capsys.readouterr().out
    )
    without = chosen(adata[batch != "batch1"])
    assert list(table["gene"]) == list(without["gene"])


def test_when_no_batch_is_large_enough_all_cells_rank_as_one(adata, capsys):
    table = chosen(adata, min_cells_per_batch=1000)
    assert "genes are ranked on all 900" in capsys.readouterr().out
    assert set(table["n_batches"]) == {1}


def test_fewer_genes_than_asked_for_gives_all_with_a_warning(adata, capsys):
    table = chosen(adata, n_top=2000)
    seen = adata.var_names[np.asarray(adata.X.sum(axis=0)).ravel() > 0]
    assert f"WARNING all {len(seen)} genes are used" in capsys.readouterr().out
    assert sorted(table["gene"]) == sorted(seen)


def test_a_gene_without_training_counts_is_never_chosen(adata):
    silent = adata.copy()
    silent.X = silent.X.multiply(silent.var_names != "gene005").tocsr()
    assert "gene005" not in set(chosen(silent, n_top=2000)["gene"])


def test_small_blocks_choose_the_same_genes(adata, monkeypatch):
    whole = chosen(adata)
    monkeypatch.setattr(blocks, "VALUES", 5000)
    assert len(list(in_memory(adata.X))) > 10
    pd.testing.assert_frame_equal(chosen(adata), whole)


def test_where_loess_fails_a_parabola_serves_and_that_is_said(capsys):
    counts = np.tile(np.arange(30)[:, None] % 2, (1, 60))
    counts[:15, 0] = 3
    variance = variance_of(sp.csr_matrix(counts.astype(np.int32)), "small")
    assert "parabola" in capsys.readouterr().out
    assert np.isfinite(variance).all()
    assert variance.argmax() == 0


def test_a_constant_gene_has_no_variance():
    counts = sp.csr_matrix(np.tile([[1, 2, 0]], (20, 1)).astype(np.int32))
    np.testing.assert_array_equal(variance_of(counts, "flat"), 0)


def test_the_script_reads_no_cell_outside_the_training_cells(adata, tmp_path, root):
    from types import SimpleNamespace

    from sclatent import files

    split = np.array(["train", "train", "validation", "heldout"])[np.arange(900) % 4]
    table = pd.DataFrame({"cell": adata.obs_names, "cells": split, "labels": "test"})
    files.write_table(tmp_path / "splits.tsv.gz", table)
    tables = []
    for factor in (1, 7):
        changed = adata.copy()
        counts = adata.X.multiply(np.where(split == "train", 1, factor)[:, None])
        changed.X = sp.csr_matrix(counts).astype(np.int32)
        files.write_h5ad(tmp_path / "cells.h5ad", changed)
        snakemake = SimpleNamespace(
            input=SimpleNamespace(cells=tmp_path / "cells.h5ad", splits=tmp_path / "splits.tsv.gz"),
            output=SimpleNamespace(genes=tmp_path / "genes.tsv"),
            params=SimpleNamespace(selection=asdict(Selection(n_top=100))),
        )
        code = (root / "scripts/select_genes.py").read_text()
        exec(code.replace("job.start(snakemake)", ""), {"snakemake": snakemake})
        tables.append((tmp_path / "genes.tsv").read_text())
    assert tables[0] == tables[1]
