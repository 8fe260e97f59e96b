"""Jobs that run out of disk or memory, or may not write: one line, and nothing lost."""

import os
import re
import resource
import subprocess
import sys
import textwrap

import anndata
import pytest

SCRIPT = """
from types import SimpleNamespace
import numpy as np
from sclatent import files, job
snakemake = SimpleNamespace(
    rule="fit_pca", wildcards={{"toy": "toy"}}, log=[{log!r}], params={{}}, input=[],
    output=[{path!r}],
)
job.start(snakemake)
{body}
"""
WRITE = """
from sclatent.data.store import write_latent
values = np.random.default_rng(0).normal(size=({n_cells}, 50))
write_latent({path!r}, values, [f"cell{{n}}" for n in range({n_cells})])
"""


def job(root, log, path, body, limit=None) -> tuple[int, str]:
    """Run a job's script, with a limit of its own, and return its exit code and its problem."""
    script = textwrap.dedent(SCRIPT).format(log=str(log), path=str(path), body=body)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root / "scripts"), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, "".join(re.findall(r"ERROR (.*)", log.read_text()))


def write(path, n_cells) -> str:
    return WRITE.format(path=str(path), n_cells=n_cells)


def no_larger_than_a_megabyte():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_case_59_a_file_beyond_the_limit_is_an_error_and_the_old_one_stays(root, tmp_path):
    path = tmp_path / "latent.h5ad"
    assert job(root, tmp_path / "log", path, write(path, 100))[0] == 0
    before = path.read_bytes()
    code, line = job(
        root, tmp_path / "log", path, write(path, 20_000), limit=no_larger_than_a_megabyte
    )
    assert code == 74
    assert re.match(r"E41[01] .*latent.h5ad: .*Fix: ", line)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*partial*"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_case_59_a_full_disk_is_an_error_with_what_is_free_and_the_old_file_stays(
    root, tmp_path, small_disk
):
    path = small_disk / "latent.h5ad"
    assert job(root, tmp_path / "log", path, write(path, 100))[0] == 0
    before = path.read_bytes()
    for n_cells in (20_000, 200_000):
        code, line = job(root, tmp_path / "log", path, write(path, n_cells))
        assert code == 74
        assert re.match(r"E410 .*latent.h5ad: .*free. Fix: free space", line)
        assert path.read_bytes() == before
        assert not list(small_disk.glob(".*partial*"))
    assert anndata.read_h5ad(path).n_obs == 100


def test_case_60_a_disk_that_is_read_only_is_named(root, tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    path = small_disk / "latent.h5ad"
    code, line = job(root, tmp_path / "log", path, write(path, 100))
    assert code == 73
    assert re.match(r"E412 .*latent.h5ad: cannot be created here. Fix: make the folder", line)


def snakemake(root, folder, *flags) -> tuple[int, str]:
    """Run the first rules of the workflow; return the exit code and what was printed."""
    command = [sys.executable, "-m", "snakemake", "results/simulated/data/counts.h5ad", *flags]
    command += ["--cores", "1", "--directory", str(folder), "--snakefile", str(root / "Snakefile")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def refused(root, folder, where) -> None:
    """Check that a run ends before its first job, with one line."""
    code, said = snakemake(root, folder)
    assert code != 0
    assert re.findall(r"ERROR .*", said) == re.findall(rf"ERROR E412 {where}: nothing can.*", said)
    assert len(re.findall(r"ERROR E412 .* \(.+\)\. Fix: make the folder writable", said)) == 1
    assert "rule simulate_counts:" not in said


@pytest.mark.workflow
def test_case_60_a_folder_of_results_that_is_read_only_ends_a_run_at_its_start(
    root, tmp_path, small_disk
):
    (tmp_path / "results").symlink_to(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused(root, tmp_path, tmp_path / "results")
    code, said = snakemake(root, tmp_path, "-n")
    assert code == 0, said
    assert "ERROR" not in said


@pytest.mark.workflow
def test_case_60_a_folder_of_the_run_that_is_read_only_is_named_at_its_end(
    root, tmp_path, small_disk
):
    assert snakemake(root, small_disk, "-n")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused(root, small_disk, small_disk / ".snakemake")


def two_gigabytes_at_most():
    resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))


def test_case_62_lack_of_memory_says_what_was_held_and_is_needed_and_how_to_ask(root, tmp_path):
    path = tmp_path / "latent.h5ad"
    body = "held = np.ones((60_000, 20_000))"
    code, line = job(root, tmp_path / "log", path, body, limit=two_gigabytes_at_most)
    assert code == 75
    found = re.match(
        r"E420 fit_pca toy: memory ran out; it held ([\d.]+) ([MG])B at most and asked for 9.6 GB "
        r"more, so it needs [\d.]+ GB or more\. Fix: .*--set-resources fit_pca:mem_mb=(\d+),",
        line,
    )
    held = float(found[1]) * {"M": 1, "G": 1000}[found[2]]  # a large parent's memory counts too
    assert int(found[3]) == pytest.approx(9600 + held, abs=60)
    assert not path.exists()
