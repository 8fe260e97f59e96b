import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

SCRIPT = """
import sys
sys.path.insert(0, {scripts!r})
from types import SimpleNamespace
from sclatent import job
from sclatent.errors import InputError
{before}
snakemake = SimpleNamespace(
    rule="train_scvi", wildcards={{"toy": "toy", "0": "0"}}, log=["logs/job.log"],
    params={params!r}, input=[], output=["made"],
)
job.start(snakemake)
{body}
"""


@pytest.fixture
def run(root, tmp_path):
    def run(body: str, params: dict | None = None, before: str = "") -> SimpleNamespace:
        values = {"body": body, "params": params or {}, "before": before}
        script = SCRIPT.format(scripts=str(root / "scripts"), **values)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        log = (tmp_path / "logs/job.log").read_text()
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, log=log)

    return run


def test_output_goes_to_the_log_and_where_it_is_asked_for_to_the_terminal_too(run, monkeypatch):
    body = "print('epoch 1'); print('epoch 2', file=sys.stderr)"
    done = run(body)
    assert (done.out, done.err) == ("", "")
    assert done.log == "epoch 1\nepoch 2\n"
    monkeypatch.setenv("SCLATENT_DEBUG", "1")
    done = run(body)
    assert done.out == "train_scvi toy 0 | epoch 1\n"
    assert done.err == "train_scvi toy 0 | epoch 2\n"
    assert done.log == "epoch 1\nepoch 2\n"


def test_an_input_error_is_its_lines_without_a_traceback_and_an_exit_code(run):
    done = run("raise InputError('E203 a: wrong. Fix: mend', 'E225 b: wrong. Fix: mend')")
    assert done.code == 65
    assert done.err == ""
    lines = "ERROR E203 a: wrong. Fix: mend\nERROR E225 b: wrong. Fix: mend\n"
    assert done.log == f"{lines}exit code 65\n"


def test_any_other_error_has_its_traceback_and_one_line_in_the_log(run):
    done = run("1 / 0")
    assert done.code == 70
    assert "Traceback" in done.log
    assert done.log.endswith("\nexit code 70\n")
    line = "ERROR E400 train_scvi toy 0: ZeroDivisionError: division by zero .*logs/job.log"
    assert re.search(rf"^{line}$", done.log, re.M)
    assert done.err == ""


@pytest.mark.parametrize("body", ["1 / 0", "raise InputError('E203 a: wrong. Fix: mend')"])
def test_a_traceback_is_on_the_terminal_when_asked_for(run, monkeypatch, body):
    monkeypatch.setenv("SCLATENT_DEBUG", "1")
    done = run(body)
    assert "Traceback" in done.err
    assert "Traceback" in done.log


def test_threads_come_from_the_config(run):
    body = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['NUMBA_NUM_THREADS'])"
    assert run(body).log == "1 1\n"
    assert run(body, {"threads": 3}).log == "3 3\n"


@pytest.mark.parametrize("threads", [1, 2])
def test_numba_compiles_also_what_was_imported_before_the_threads_were_set(run, threads):
    before = "import numba"
    body = "print(numba.njit(lambda x: x + 1)(1), numba.get_num_threads())"
    assert run(body, {"threads": threads}, before).log == f"2 {threads}\n"


def test_the_cost_has_time_and_memory(run, tmp_path):
    run("held = b'1' * 100_000_000; job.write_cost('cost.json')")
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert set(cost) == {"wall_seconds", "cpu_seconds", "peak_memory_mb"}
    assert 100 <= cost["peak_memory_mb"] < 120


def test_the_cost_of_earlier_attempts_counts(run, tmp_path):
    earlier = {"wall_seconds": 1000.0, "cpu_seconds": 2000.0, "peak_memory_mb": 9000.0}
    run(f"sum(range(10**6)); job.write_cost('cost.json', {earlier})")
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert 1000 < cost["wall_seconds"] < 1100
    assert 2000 < cost["cpu_seconds"] < 2100
    assert cost["peak_memory_mb"] == 9000
