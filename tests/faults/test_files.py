"""Files on disk that are not what was written."""

import re
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from sclatent import files
from sclatent.cells.graph import GraphSettings, build_graph, read_graph, write_graph
from sclatent.data import blocks, store
from sclatent.data.formats import read_content
from sclatent.data.settings import Entry
from sclatent.errors import InputError
from sclatent.training import checkpoint

FLIPS = 300


def flip(path, content: bytes, random) -> None:
    """Write a file anew with one byte changed."""
    changed = bytearray(content)
    changed[random.integers(len(changed))] ^= int(random.integers(1, 256))
    path.write_bytes(bytes(changed))


@pytest.fixture
def latent(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 4))
    store.write_latent(tmp_path / "latent.h5ad", values, [f"cell{n}" for n in range(50)])
    return tmp_path / "latent.h5ad"


@pytest.fixture
def counts(tmp_path):
    random = np.random.default_rng(0)
    adata = anndata.AnnData(
        np.asarray(random.poisson(1, (40, 30)), dtype=np.int32),
        obs=pd.DataFrame(index=[f"cell{n}" for n in range(40)]),
        var=pd.DataFrame(index=[f"gene{n}" for n in range(30)]),
    )
    blocks.write_dataset(tmp_path / "cells.h5ad", blocks.from_anndata(adata))
    return tmp_path / "cells.h5ad"


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_case_46_a_truncated_h5ad_is_named_with_its_size(counts, part):
    files.sidecar(counts).unlink()  # as a user's file, which has none
    content = counts.read_bytes()
    counts.write_bytes(content[: int(part * len(content))])

    def read():
        matrix, _ = read_content(counts, Entry(source="cells.h5ad")).matrices["X"]()
        return matrix.to_csr()

    with pytest.raises(InputError, match=rf"^E31[02] {re.escape(str(counts))}"):
        read()


def test_case_47_300_flipped_bytes_of_a_latent_are_all_noticed_before_hdf5_opens_it(latent):
    random, content = np.random.default_rng(47), latent.read_bytes()
    for _ in range(FLIPS):
        flip(latent, content, random)
        with pytest.raises(InputError, match=r"E321 .*latent.h5ad: its SHA-256 is \w{64}, .*rm "):
            store.read_latent(latent)
    latent.write_bytes(content)
    assert store.read_latent(latent).shape == (50, 4)


def test_case_47_flipped_bytes_of_counts_are_noticed_by_all_that_reads_them(counts):
    random, content = np.random.default_rng(47), counts.read_bytes()
    readers = (store.read_cells, store.read_obs, store.read_genes, blocks.open_dataset)
    for reader in (*readers, blocks.row_sizes):
        flip(counts, content, random)
        with pytest.raises(InputError, match="E321"):
            reader(counts)


def test_case_47_flipped_bytes_of_a_graph_are_noticed(tmp_path):
    random = np.random.default_rng(47)
    cells = [f"cell{n}" for n in range(60)]
    graph = build_graph(random.normal(size=(60, 5)), cells, GraphSettings(n_neighbors=5), seed=0)
    write_graph(tmp_path / "graph.npz", graph)
    content = (tmp_path / "graph.npz").read_bytes()
    for _ in range(50):
        flip(tmp_path / "graph.npz", content, random)
        with pytest.raises(InputError, match="E321"):
            read_graph(tmp_path / "graph.npz")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_case_47_300_flipped_bytes_of_a_model_are_all_noticed(tmp_path, name):
    checkpoint.save_model(tmp_path, torch.nn.Linear(3, 2), {"kind": "scvi"})
    random, content = np.random.default_rng(47), (tmp_path / name).read_bytes()
    for _ in range(FLIPS):
        flip(tmp_path / name, content, random)
        with pytest.raises(InputError, match="E321"):
            checkpoint.load_model(tmp_path)


def test_case_47_a_checkpoint_with_a_flipped_byte_is_never_gone_on_from(tmp_path):
    path, random = tmp_path / "checkpoint", np.random.default_rng(47)
    tree = {"weights": torch.arange(40.0), "step": 12, "name": "β"}
    checkpoint.write_tree(path, tree)
    content, same = path.read_bytes(), 0
    for _ in range(FLIPS):
        flip(path, content, random)
        try:
            found = checkpoint.read_tree(path)
        except (checkpoint.SafetensorError, ValueError, OSError):
            continue
        same += 1
        assert torch.equal(found.pop("weights"), tree["weights"])
        assert found == {"step": 12, "name": "β"}
    assert same < FLIPS / 4


def test_case_47_a_hash_that_is_damaged_itself_is_an_error(latent):
    files.sidecar(latent).write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="E321"):
        store.read_latent(latent)


def test_a_crash_between_a_file_and_its_hash_leaves_no_hash_of_another(latent, monkeypatch):
    monkeypatch.setattr(files, "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.write_latent(latent, np.ones((50, 4)), [f"cell{n}" for n in range(50)])
    assert not files.sidecar(latent).exists()
    assert (store.read_latent(latent) == 1).all()


def test_a_file_copied_without_its_hash_is_read_as_it_is(latent, tmp_path):
    shutil.copy(latent, tmp_path / "copy.h5ad")
    assert store.read_latent(tmp_path / "copy.h5ad").shape == (50, 4)


def test_case_55_a_model_of_another_hash_or_format_says_which(tmp_path):
    checkpoint.save_model(tmp_path, torch.nn.Linear(3, 2), {"kind": "scvi"})
    description = files.read_json(tmp_path / "model.json")
    files.write_json(tmp_path / "model.json", {**description, "format": 99}, hashed=True)
    with pytest.raises(InputError, match=r"E323 .*format 99, this release reads \d+"):
        checkpoint.load_model(tmp_path)
    files.write_json(tmp_path / "model.json", {**description, "sha256": "0" * 64}, hashed=True)
    with pytest.raises(InputError, match=r"E321 .*model.safetensors"):
        checkpoint.load_model(tmp_path)
