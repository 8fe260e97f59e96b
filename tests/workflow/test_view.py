"""What is shown of a run, on a terminal and elsewhere."""

import io
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from rich.console import Console
from sclatent_view import handler
from sclatent_view.bars import drawn
from sclatent_view.handler import Handler
from sclatent_view.jobs import Job, Log, Run
from sclatent_view.lines import Lines
from snakemake_interface_logger_plugins.common import LogEvent


class Own(logging.StreamHandler):
    is_tty = True


@pytest.fixture
def own():
    return Own(io.StringIO())


@pytest.fixture
def handle(own, tmp_path):
    """Return a function that gives a handler a record of Snakemake; its view is plain lines."""
    made = Handler(own, Lines(own.stream))

    def handle(event, message=None, level=logging.INFO, **fields):
        record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
        record.__dict__ |= {"event": event, **fields}
        made.handle(record)

    handle.handler = made
    yield handle
    made.close()


def begin(handle, tmp_path, local=True):
    """Let a run of two jobs of one rule begin."""
    handle(LogEvent.WORKFLOW_STARTED)
    handle(LogEvent.RUN_INFO, stats={"train_scvi": 2, "total": 2})
    for number in (0, 1):
        log = [str(tmp_path / f"{number}.log")]
        names = {"rule_name": "train_scvi", "wildcards": {"dataset": "toy", "seed": number}}
        handle(LogEvent.JOB_INFO, jobid=number, log=log, local=local, **names)


def test_a_log_is_read_as_it_grows_and_what_was_there_before_is_not(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("WARNING of an earlier attempt\n")
    log = Log(path)
    assert log.new_lines() == []
    path.write_text("epoch 1\nepo")
    assert log.new_lines() == ["epoch 1"]
    with open(path, "a") as file:
        file.write("ch 2\n\x1b[31mred\n")
    assert log.new_lines() == ["epoch 2", " [31mred"]
    path.write_text("anew\n")
    assert log.new_lines() == ["anew"]


def test_jobs_that_are_done_have_a_line_each_and_warnings_are_kept(handle, own, tmp_path):
    begin(handle, tmp_path)
    (tmp_path / "0.log").write_text("epoch 1\nWARNING few cells\nNOTE one batch\n")
    handle(LogEvent.JOB_FINISHED, "Finished", job_id=0)
    handle(LogEvent.PROGRESS, done=1, total=2)
    handle(LogEvent.JOB_FINISHED, "Finished", job_id=1)
    lines = own.stream.getvalue().splitlines()
    assert lines[:3] == [
        "2 jobs to run",
        "WARNING train_scvi toy 0: few cells",
        "NOTE train_scvi toy 0: one batch",
    ]
    assert re.fullmatch(r"\[1/2\] train_scvi toy 0: \d\.\d s", lines[3])
    assert re.fullmatch(r"\[2/2\] train_scvi toy 1: \d\.\d s", lines[4])


def test_a_failure_is_said_at_once_with_its_reason_and_its_log_and_so_is_a_retry(
    handle, own, tmp_path
):
    begin(handle, tmp_path)
    (tmp_path / "0.log").write_text("ERROR E1 a: b. Fix: c\nERROR E2 d: e. Fix: f\nexit code 65\n")
    said = "CalledProcessError in file x:\nCommand 'python tmp.train_scvi.py' returned non-zero "
    handle(LogEvent.ERROR, f"RuleException:\n{said}exit status 65.", logging.ERROR)
    handle(LogEvent.JOB_ERROR, "Error", jobid=0, rule_msg=None)
    handle(None, "Trying to restart job 0.")
    handle(LogEvent.ERROR, f"RuleException:\n{said}exit status 137.", logging.ERROR)
    handle(LogEvent.JOB_ERROR, "Error", jobid=1, rule_msg=None)
    assert own.stream.getvalue().splitlines()[1:] == [
        f"FAILED train_scvi toy 0: E1 a: b. Fix: c (and 1 more, log: {tmp_path}/0.log)",
        "NOTE train_scvi toy 0: it is tried again",
        f"FAILED train_scvi toy 1: it ended with exit status 137 (log: {tmp_path}/1.log)",
    ]
    assert handle.handler.run.rules == {"train_scvi": [0, 1, 2]}


def test_what_a_cluster_says_of_jobs_that_failed_together_is_kept(handle, own, tmp_path):
    begin(handle, tmp_path, local=False)
    infos = [{"jobid": number} for number in (0, 1)]
    handle(LogEvent.GROUP_ERROR, "status is: 'TIMEOUT'", job_error_info=infos)
    lines = own.stream.getvalue().splitlines()[1:]
    assert [line[: line.index(" (log")] for line in lines] == [
        f"FAILED train_scvi toy {number}: status is: 'TIMEOUT'" for number in (0, 1)
    ]


def test_warnings_and_errors_of_snakemake_are_shown_and_its_small_talk_is_not(handle, own):
    handle(LogEvent.WORKFLOW_STARTED)
    handle(None, "Select jobs to execute...")
    handle(LogEvent.SHELLCMD, "Shell command: None")
    handle(None, "Creating conda environment envs/torch.yaml...")
    handle(None, "the disk is slow", logging.WARNING)
    handle(LogEvent.ERROR, "MissingOutputException", logging.ERROR)
    assert own.stream.getvalue().splitlines() == [
        "Creating conda environment envs/torch.yaml...",
        "the disk is slow",
        "MissingOutputException",
    ]


def test_before_a_run_begins_snakemake_speaks_for_itself(handle, own):
    handle(None, "Building DAG of jobs...")
    assert own.stream.getvalue() == "Building DAG of jobs...\n"


def test_a_view_that_fails_leaves_the_run_and_what_it_says_alone(handle, own, tmp_path):
    begin(handle, tmp_path)
    handle.handler.view.finished = None
    handle(LogEvent.JOB_FINISHED, "Finished jobid: 0", job_id=0)
    handle(LogEvent.JOB_FINISHED, "Finished jobid: 1", job_id=1)
    assert own.stream.getvalue().count("NOTE the view of the run failed") == 1
    assert own.stream.getvalue().endswith("\nFinished jobid: 0\nFinished jobid: 1\n")


def test_a_job_that_takes_long_has_a_line_at_most_once_a_minute():
    stream, lines, run = io.StringIO(), None, Run()
    lines = Lines(stream)
    run.add(0, Job("train_scvi toy 0", "train_scvi", None, True, time.time() - 70, "epoch 3/9"))
    run.add(1, Job("train_scvi toy 1", "train_scvi", None, True, time.time() - 30, "epoch 1/9"))
    lines.refresh(run)
    lines.refresh(run)
    assert stream.getvalue() == "train_scvi toy 0: epoch 3/9\n"


def test_the_time_of_a_job_on_a_cluster_is_without_the_queue(tmp_path):
    (tmp_path / "a.json").write_text('{"cost": {"wall_seconds": 6.5}}')
    job = Job("a", "a", Log(tmp_path / "a.log"), False, time.time() - 100)
    assert job.seconds == 6.5
    job.is_local = True
    assert job.seconds >= 100


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("height", [4, 24])
def test_the_bars_fit_into_the_lower_half_of_any_terminal(width, height):
    run = Run()
    run.plan({f"a_rule_of_a_long_name_{number}": 3 for number in range(20)})
    epoch = "epoch 7/99  loss 5.00  validation 6.00 nats/cell  KL weight 1.00  12 s left"
    for number in range(12):
        rule = f"a_rule_of_a_long_name_{number}"
        run.add(number, Job(f"{rule} simulated scvi 0", rule, None, True, time.time(), epoch))
    console = Console(width=width, height=height, file=io.StringIO())
    lines = [
        "".join(segment.text for segment in line)
        for line in console.render_lines(drawn(run, width, height), pad=False)
    ]
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= max(4, height // 2 + 1)
    assert lines[0].startswith("all jobs")
    if width >= 80 and height == 24:
        assert "  simulated scvi 0  0:00  epoch 7/99, validation 6.00, 12 s left" in lines
        assert "0 of 20 rules have ended, 8 wait" in lines


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("SCLATENT_DEBUG", "1")])
def test_there_are_no_bars_where_they_would_do_harm(own, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert handler.bars(own) is None


def test_there_are_plain_lines_where_snakemake_comes_without_rich(own, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delitem(sys.modules, "sclatent_view.bars")
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert handler.bars(own) is None


def on_a_terminal(command, folder, stop=lambda text: False) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns; send ctrl-C once what it shows says so."""
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), there)
    running = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        start_new_session=True,
        **streams,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(there)
    found, stopped = b"", False
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:
            part = b""
        if not part:
            break
        found += part
        if not stopped and stop(found.decode(errors="replace")):
            stopped = True
            os.killpg(running.pid, signal.SIGINT)
    os.close(here)
    return running.wait(timeout=600), found.decode(errors="replace")


# large enough that filter_cells takes longer than it is between two looks
TOY = {"source": "simulate", "simulate": {"n_cells": 8000, "n_genes": 1500, "n_batches": 2}}


@pytest.mark.workflow
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_terminal_has_bars_while_a_run_lasts_and_is_left_clean(workflow, small, interrupted):
    path = workflow.folder / "my.yaml"
    path.write_text(yaml.safe_dump({**small, "denoise": {}, "datasets": {"toy": TOY}}))
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    command += ["results/toy/data/genes/seed0.tsv", "-s", str(workflow.root / "Snakefile")]
    command += ["--configfile", str(path)]
    code, text = on_a_terminal(
        command, workflow.folder, lambda text: interrupted and "filter_cells" in text
    )
    assert (code == 0) != interrupted, text
    assert re.search(r"all jobs +\S*[━─]", text)
    assert re.search(r"filter_cells .* 0/1  1 running", re.sub(r"\x1b\[[\d;]*m", "", text))
    assert "WARNING validate_counts toy: " in text or interrupted
    assert "input:" not in text
    *_, last = text.rpartition("\x1b[?25h")  # the cursor is shown again, and then
    assert "Complete log(s): " in last
    assert "━" not in last
    assert ("Then go on with: " in last) == interrupted
