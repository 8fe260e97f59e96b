"""The embedded default as `make run` leaves it, which CI makes before the tests."""

import fcntl
import itertools
import subprocess
import sys

import anndata
import pytest

from sclatent import files

pytestmark = pytest.mark.workflow
DATASETS = ("pbmc68k", "simulated")
LATENTS = ("pca", "harmony", "dca", "scvi", "scanvi")


@pytest.fixture(scope="module")
def results(root):
    """The results of the default run; where they are not up to date they are made."""
    with open(root / "results/.test.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "snakemake", "--cores", "2"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return root / "results"


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_latent_has_every_score_in_three_seeds(results, dataset):
    scores = files.read_table(results / dataset / "benchmark/comparison.tsv")
    own = scores[scores["kind"] == "latent"]
    metrics = {"knn_accuracy", "nmi", "ari", "clisi", "ilisi", "preservation", "wall_seconds"}
    assert metrics <= set(own["metric"])
    for metric in metrics:
        rows = own[own["metric"] == metric]
        found = sorted(zip(rows["latent"], rows["seed"], strict=True))
        assert found == sorted(itertools.product(LATENTS, (0, 1, 2))), metric
    assert own[own["metric"] == "preservation"]["value"].between(0, 1).all()


@pytest.mark.parametrize("dataset", DATASETS)
def test_three_layouts_of_every_latent_are_judged(results, dataset):
    for latent in LATENTS:
        layout = anndata.read_h5ad(results / dataset / f"cells/{latent}/seed0/umap.h5ad")
        assert set(layout.obsm) == {"seed0", "seed1", "seed2"}
        assert all(0.5 < value <= 1 for value in layout.uns["trustworthiness"].values())


def test_the_verdict_speaks_of_each_dataset_and_the_report_shows_each_figure(results):
    verdict = (results / "verdict.txt").read_text()
    page = (results / "report.html").read_text()
    for dataset in DATASETS:
        assert f"{dataset}: " in verdict
        assert page.count("data:image/png;base64,") >= len(list(results.glob("*/figures/*.png")))
