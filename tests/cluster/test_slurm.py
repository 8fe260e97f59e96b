import re
import signal
import subprocess

import pytest

from sclatent import files

pytestmark = pytest.mark.workflow
TRAINED = ("seed0.h5ad", "seed0.curve.tsv", "seed0.model/model.safetensors")


def assert_same_training(one, other):
    for name in TRAINED:
        here, there = (run.latent / name for run in (one, other))
        assert files.sha256(here) == files.sha256(there), name
    assert not list((one.latent).glob("*checkpoint*"))


def test_the_default_datasets_one_of_them_real_go_through_sbatch(run):
    run.submitted()
    for dataset in ("pbmc68k", "simulated"):
        assert (run.folder / f"results/{dataset}/{dataset}.h5ad").stat().st_size > 0
        assert (run.folder / f"results/{dataset}/benchmark/comparison.tsv").is_file()
    assert "pbmc68k" in (run.folder / "results/verdict.txt").read_text()
    log = run.snakemake_log()
    n_jobs = log.count("has been submitted with SLURM jobid")
    n_rules = int(re.search(r"(\d+) of \1 steps \(100%\) done", log)[1])
    assert n_jobs < n_rules / 3
    assert "Nothing to be done" in run.submitted("-n")


def test_a_job_killed_for_memory_asks_for_more_and_succeeds(toy, trained):
    little = "train_scvi:mem_mb=400 * 4 ** (attempt - 1)"
    toy.submitted(toy.target, "--set-resources", little)
    asked = toy.snakemake_log()
    (log,) = (toy.folder / ".snakemake/slurm_logs/rule_train_scvi/toy_scvi_0").glob("*.log")
    assert "Exceeded job memory limit" in log.read_text()
    assert [f"mem_mb={mb}" in asked for mb in (400, 1600, 6400)] == [True, True, False]
    assert_same_training(toy, trained)


def test_a_job_that_is_out_of_time_goes_on_in_the_next_attempt(toy, trained):
    running = toy.submit(toy.target, "--set-resources", "train_scvi:runtime=attempt")
    # It hangs until Slurm's shortest limit, a minute; Slurm wakes it, and asks it to end.
    toy.training(running).suspend()
    output = toy.end(running)
    assert "SLURM status is: 'TIMEOUT'" in output
    log = (toy.folder / "results/toy/logs/train_scvi/scvi.seed0.log").read_text()
    assert "going on from results/toy/latent/scvi/seed0.checkpoint" in log
    assert_same_training(toy, trained)


def test_a_cancelled_training_ends_the_same_when_it_is_run_again(toy, trained):
    running = toy.submit(toy.target, "--retries", "0")
    toy.training(running).suspend()
    subprocess.run(["scancel", *toy.jobs("RUNNING")], check=True)
    output = toy.end(running, good=False)
    assert "SLURM status is: 'CANCELLED'" in output
    assert not (toy.latent / "seed0.h5ad").exists()
    toy.submitted(toy.target)
    log = (toy.folder / "results/toy/logs/train_scvi/scvi.seed0.log").read_text()
    assert "going on from results/toy/latent/scvi/seed0.checkpoint" in log
    assert_same_training(toy, trained)


def test_ctrl_c_cancels_what_was_submitted_and_the_same_command_goes_on(toy, trained):
    running = toy.submit(toy.target)
    toy.training(running).suspend()
    assert toy.jobs("RUNNING")
    running.send_signal(signal.SIGINT)
    toy.end(running, good=False)
    toy.wait_for(lambda: not toy.jobs("RUNNING", "PENDING", "COMPLETING"))
    assert not (toy.latent / "seed0.h5ad").exists()
    toy.submitted(toy.target)
    assert_same_training(toy, trained)
