import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server is for Linux")

SCRIPT = """
import sys
sys.path.append({scripts!r})
from sclatent import forkserver
forkserver.hand_over(sys.argv[0])
import json, os, time
import wave
{body}
"""


class Owner:
    """A process whose jobs share a server."""

    def __init__(self, root, folder):
        self.root, self.folder = root, folder
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.environment = {
            **os.environ,
            "SCLATENT_OWNER": str(self.process.pid),
            "TMPDIR": str(folder),
        }
        self.n_scripts = 0

    def begin(self, body: str, **environment) -> subprocess.Popen:
        self.n_scripts += 1
        script = self.folder / f"job{self.n_scripts}.py"
        script.write_text(SCRIPT.format(scripts=str(self.root / "scripts"), body=body))
        return subprocess.Popen(
            [sys.executable, str(script)],
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, body: str, **environment):
        job = self.begin(body, **environment)
        out, err = job.communicate(timeout=20)
        return job.returncode, out, err

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def owner(root, tmp_path):
    owner = Owner(root, tmp_path)
    yield owner
    owner.end()


TELL = "print(json.dumps([os.getpid(), os.getppid(), os.getcwd(), os.environ.get('MINE')]))"


def test_jobs_are_children_of_one_server_and_have_their_own_environment(owner):
    first, second = (json.loads(owner.run(TELL, MINE=mine)[1]) for mine in ("1", "2"))
    assert first[0] != second[0]
    assert first[1] == second[1]
    assert psutil.Process(first[1]).cmdline()[-1].startswith("import sys")
    assert [first[3], second[3]] == ["1", "2"]
    assert first[2] == str(owner.folder)


def test_what_one_job_imported_in_a_function_is_there_for_the_next(owner):
    import_late = "def late():\n    import colorsys\n"
    assert owner.run(f"{import_late}print('colorsys' in sys.modules)\nlate()")[1] == "False\n"
    assert owner.run(f"{import_late}print('colorsys' in sys.modules)\nlate()")[1] == "True\n"


@pytest.mark.parametrize(
    ("body", "code", "err"),
    [
        ("print('well')", 0, ""),
        ("sys.exit(65)", 65, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("os._exit(7)", 7, ""),
        ("import atexit; atexit.register(print, 'last', file=sys.stderr)", 0, "last\n"),
    ],
)
def test_a_job_ends_as_it_would_by_itself(owner, body, code, err):
    assert owner.run(body)[::2] == (code, err)


def test_an_error_is_shown_as_the_scripts_own(owner):
    code, _, err = owner.run("1 / 0")
    assert code == 1
    assert err.startswith('Traceback (most recent call last):\n  File "')
    assert "job1.py" in err.splitlines()[1]
    assert err.endswith("ZeroDivisionError: division by zero\n")


def test_a_job_that_a_signal_ended_looks_so(owner):
    assert owner.run("os.kill(os.getpid(), 9)")[0] == -signal.SIGKILL


WAIT = "print(os.getpid(), flush=True); time.sleep(30)"


def test_a_signal_reaches_the_job(owner):
    with owner.begin(f"import signal; signal.signal(15, lambda *_: sys.exit(75)); {WAIT}") as job:
        job.stdout.readline()
        job.terminate()
        assert job.wait(timeout=20) == 75


@pytest.mark.parametrize("whom", ["its process", "the owner"])
def test_a_job_ends_when_what_it_is_for_is_killed(owner, whom):
    job = owner.begin(WAIT)
    child = psutil.Process(int(job.stdout.readline()))
    server = child.parent()
    if whom == "the owner":
        owner.end()
        server.wait(timeout=20)
        assert not list(owner.folder.glob("sclatent-*"))
    else:
        job.kill()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.communicate(timeout=20)


@pytest.mark.parametrize(
    "reason", ["no owner", "it is told to", "the owner ended", "a folder that others may enter"]
)
def test_where_there_can_be_no_server_a_job_runs_by_itself(owner, reason):
    environment = {}
    if reason == "no owner":
        environment["SCLATENT_OWNER"] = ""
    elif reason == "it is told to":
        environment["SCLATENT_ALONE"] = "1"
    elif reason == "the owner ended":
        owner.end()
    else:
        (owner.folder / f"sclatent-{os.getuid()}-{owner.process.pid}").mkdir(mode=0o755)
    job = owner.begin("print(os.getpid(), forkserver.served)", **environment)
    out, err = job.communicate(timeout=20)
    assert (out, err) == (f"{job.pid} False\n", "")


def test_the_server_outlives_jobs_that_fail_and_that_are_killed(owner):
    before = json.loads(owner.run(TELL)[1])[1]
    assert owner.run("1 / 0")[0] == 1
    assert owner.run("os.kill(os.getpid(), 9)")[0] == -signal.SIGKILL
    for _ in range(3):
        with owner.begin(WAIT) as job:
            job.stdout.readline()
            job.kill()
    assert json.loads(owner.run(TELL)[1])[1] == before
