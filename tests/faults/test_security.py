"""Files and texts that would do harm."""

import gzip
import io
import json
import os
import pickle
import resource
import subprocess
import sys
import tarfile
import zipfile

import h5py
import numpy as np
import pytest

from sclatent.cells.graph import read_graph
from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset
from sclatent.errors import InputError
from sclatent.training import checkpoint

MATRIX = b"%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 5\n"


def read(path):
    """Read a dataset of one file, as the rule does."""
    return read_dataset("toy", Entry(source=str(path)), {"toy": str(path)}, Limits())


def tar(path, name, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = len(MATRIX) if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(MATRIX) if member.size else None)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../../escaped.mtx", tarfile.REGTYPE, ""),
        ("/tmp/escaped.mtx", tarfile.REGTYPE, ""),
        ("matrix.mtx", tarfile.SYMTYPE, "/etc/passwd"),
        ("matrix.mtx", tarfile.LNKTYPE, "../secret"),
        ("matrix.mtx", tarfile.CHRTYPE, ""),
    ],
)
def test_case_50_a_tar_that_reaches_outside_is_refused(tmp_path, name, kind, link):
    with pytest.raises(InputError, match=r"E33[01] .*is refused: .*(outside|link or a device)"):
        read(tar(tmp_path / "a.tar", name, kind, link))
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_case_50_a_zip_that_reaches_outside_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../escaped.mtx", MATRIX)
    with pytest.raises(InputError, match=r"E330 .*outside"):
        read(tmp_path / "a.zip")
    assert not list(tmp_path.parent.rglob("escaped*"))


def bomb(path):
    """Write a small zip of 300 MB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("matrix.mtx", b"\0" * 300_000_000)


def text_bomb(path):
    """Write a small csv.gz of 100 MB, as one line."""
    path.write_bytes(gzip.compress(b"0," * 50_000_000, 6))


def market_bomb(path):
    """Write a 10x folder whose small matrix unpacks to 100 MB of comments."""
    path.mkdir()
    (path / "genes.tsv").write_text("gene\n")
    (path / "barcodes.tsv").write_text("cell\n")
    (path / "matrix.mtx.gz").write_bytes(gzip.compress(MATRIX + b"%\n" * 50_000_000, 6))


def names_bomb(path):
    """Write a 10x folder with a matrix of one count and 100 MB of names."""
    market_bomb(path)
    (path / "matrix.mtx.gz").write_bytes(gzip.compress(MATRIX))
    (path / "genes.tsv").unlink()
    (path / "features.tsv.gz").write_bytes(gzip.compress(b"g\n" * 50_000_000, 6))


def column_bomb(path):
    """Write a few KB whose obs has a column of 10^12 cells."""
    hdf5_bomb(path)
    with h5py.File(path, "r+") as file:
        file["obs"].attrs["column-order"] = np.array(["donor"], dtype="S5")
        file.create_dataset("obs/donor", (10**12,), dtype="f8", chunks=(1000,))


def hdf5_bomb(path):
    """Write a few KB that declare 800 GB."""
    with h5py.File(path, "w") as file:
        for name in ("obs", "var"):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs.update({"_index": "_index", "column-order": np.array([], dtype="S1")})
            names = [b"a", b"b"]
            group.create_dataset("_index", data=names, dtype=h5py.string_dtype())
        file.create_dataset("X", (10**6, 10**5), dtype="f8", chunks=(1000, 1000))


READ = """
import sys
from sclatent.data.settings import Entry, Limits
from sclatent.data.sources import read_dataset
from sclatent.errors import InputError
import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_dataset("toy", Entry(source=sys.argv[1]), {"toy": sys.argv[1]}, Limits())
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (bomb, "a.zip"),
        (text_bomb, "a.csv.gz"),
        (market_bomb, "a"),
        (names_bomb, "a"),
        (hdf5_bomb, "a.h5ad"),
        (column_bomb, "a.h5ad"),
    ],
)
def test_case_51_a_bomb_is_refused_within_200_megabytes(root, tmp_path, make, name):
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 2**20
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, tmp_path / name],
        env={"PYTHONPATH": str(root / "scripts"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("E3"), said
    assert int(said.split()[-1]) * resource.getpagesize() / 4096 < 200_000


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_case_52_a_pickle_under_the_name_of_a_model_is_refused_and_does_not_run(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"format": checkpoint.FORMAT, "sha256": ""}))
    with open(tmp_path / "model.safetensors", "wb") as file:
        pickle.dump(Payload(str(tmp_path / "ran")), file)
    with pytest.raises(InputError, match="E321"):
        checkpoint.load_model(tmp_path)
    with pytest.raises(checkpoint.SafetensorError):
        checkpoint.read_tree(tmp_path / "model.safetensors")
    assert not (tmp_path / "ran").exists()


def test_case_53_objects_in_a_numpy_file_are_refused_and_do_not_run(tmp_path):
    objects = np.array([Payload(str(tmp_path / "ran"))], dtype=object)
    np.savez(tmp_path / "graph.npz", data=objects, cells=objects)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_graph(tmp_path / "graph.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.workflow
def test_case_54_a_config_that_would_make_python_objects_is_refused(root, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"seeds: !!python/object/apply:os.mkdir [{tmp_path}/ran]\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", root / "Snakefile"]
    command += ["--directory", tmp_path, "--configfile", path]
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow/plugin")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode != 0
    assert f"ERROR E114 {path}: line 1 is refused" in result.stdout
    assert not (tmp_path / "ran").exists()
