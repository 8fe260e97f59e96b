"""The workflow run from an environment of Snakemake alone, each rule in that of its group."""

import contextlib
import hashlib
import http.server
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """The folder of the environments: a temporary one, or the one that SCLATENT_ENVS names."""
    if "SCLATENT_ENVS" not in os.environ:
        return tmp_path_factory.mktemp("envs")
    folder = Path(os.environ["SCLATENT_ENVS"]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def locked() -> dict[str, str]:
    """What tells the stand-in for conda to link the packages that are installed here.

    Where SCLATENT_ENVS names a folder to keep the environments in, they come from PyPI.
    """
    return {} if "SCLATENT_ENVS" in os.environ else {"LOCKED": sysconfig.get_path("purelib")}


@pytest.fixture(scope="session")
def lean(root, cache, locked) -> Path:
    """An environment with Snakemake and what it needs, at the lock's versions, and nothing else."""
    lock = root / "requirements.lock"
    folder = cache / f"snakemake-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    if locked:
        version = importlib.metadata.version("snakemake")
        (cache / "snakemake.yaml").write_text(f"dependencies: [snakemake ={version}]")
        command = [sys.executable, HERE / "stand_in/bin/conda", "env", "create", "--file"]
        command += [cache / "snakemake.yaml", "--prefix", folder]
        subprocess.run(command, check=True, env=os.environ | locked)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--constraint", lock, "snakemake"], check=True)
    (folder / "ready").touch()
    return folder


@dataclass
class Job:
    """What a job loaded, and from where."""

    rule: str
    prefix: Path
    modules: dict[str, str]

    @property
    def file(self) -> Path:
        """Snakemake's copy of the file that the job's environment was made from."""
        return self.prefix.with_suffix(".yaml")

    def packages(self, prefix: Path) -> set[str]:
        """Return the packages that the job loaded from an environment."""
        owners = owned(prefix)
        return {owners[file] for file in self.modules.values() if file in owners}


@lru_cache
def owned(prefix: Path) -> dict[str, str]:
    """Return {file: the package it belongs to} of an environment."""
    site = next(prefix.glob("lib/python*/site-packages"))
    return {
        str(site / file): name
        for package in importlib.metadata.distributions(path=[str(site)])
        for name in [package.name.lower()]  # it is read from a file each time
        for file in package.files or []
    }


@pytest.fixture(scope="session")
def chain(root, cache, lean, locked, tmp_path_factory) -> list[Job]:
    """The jobs of every rule: a dataset up to the report, then other sources and a model."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "records").mkdir()
    write_counts(folder)
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    sources = config.pop("sources")
    run = partial(run_chain, root, folder, cache, lean, locked)
    run(config)
    config["latents"].append("scvi_bought")
    exported = "results/toy/latent/scvi/seed0.scvi-tools"
    config["datasets"]["toy"]["models"] = {"scvi_bought": exported}
    wanted = ["results/toy/latent/scvi_bought/seed0.h5ad"]
    with served(folder / "served") as address:
        for name, source in sources.items():
            config["datasets"][name] = {"source": source.format(address=address)}
            wanted.append(f"results/{name}/data/cells.h5ad")
        run(config, *wanted)
    return list(map(job, (folder / "records").glob("*.py.json")))


def write_counts(folder: Path) -> None:
    """Write counts of two samples: a table to download, and a zarr store."""
    import anndata
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(0)
    rate = np.exp(random.normal(0, 1, (3, 150)))[random.integers(0, 3, 200)]
    genes = [f"gene{number}" for number in range(150)]
    table = pd.DataFrame(random.poisson(rate), [f"cell{n}" for n in range(200)], genes)
    (folder / "served").mkdir()
    table.to_csv(folder / "served/table.csv")
    anndata.AnnData(table.astype("float32")).write_zarr(folder / "store.zarr")


@contextlib.contextmanager
def served(folder: Path):
    """Give an address on this machine under which a folder's files can be downloaded."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *_):
        """Say nothing."""


def run_chain(
    root: Path, folder: Path, cache: Path, lean: Path, locked: dict, config: dict, *targets: str
) -> None:
    """Run the workflow through the stand-in for conda."""
    file = folder / "my.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {key: os.environ[key] for key in os.environ if key != "VIRTUAL_ENV"}
    path = [HERE / "stand_in/bin", lean / "bin", os.environ["PATH"]]
    environment |= {"PATH": ":".join(map(str, path)), "RECORDS": str(folder / "records")} | locked
    command = [
        lean / "bin/python",
        "-m",
        "snakemake",
        *targets,
        "--snakefile",
        root / "Snakefile",
        "--cores",
        "2",
    ]
    command += ["--profile", root / "profiles/conda", "--conda-prefix", cache / "conda"]
    done = subprocess.run(
        [*command, "--configfile", file],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


def job(record: Path) -> Job:
    """Read what one job wrote down."""
    found = json.loads(record.read_text())
    return Job(found["script"].split(".")[-2], Path(found["prefix"]), found["modules"])
