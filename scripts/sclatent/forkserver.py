"""A process that has imported what the jobs of a run need, and forks for each of them.

A job of a small dataset takes less time than its imports. So the first job of a run starts a
server, and all hand themselves over: the server imports what the script does and forks, and the
child runs the script with the job's environment and streams. What a child imports besides, it
reports at its end, for the next one. The job's own process waits, passes signals on and ends as the
child does. Nothing of a job can reach another: a child is a process of its own.

The server ends with the run. Where it cannot be had, a job runs by itself. Linux only: elsewhere
libraries do not outlive a fork.
"""

import ast
import atexit
import contextlib
import ctypes
import gc
import hashlib
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from functools import partial
from pathlib import Path

OWNER = "SCLATENT_OWNER"  # in the environment: the process whose jobs share a server
ALONE = "SCLATENT_ALONE"  # in the environment, of any value: each job runs by itself
SIGNALS = (
    signal.SIGTERM,
    signal.SIGUSR1,
)  # passed on; SIGINT goes to all of a terminal's processes
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")  # numba starts none before it needs them
PR_SET_PDEATHSIG = 1  # of prctl: the signal that a process gets when its parent ends

served = False
"""Whether this process is a child of the server."""


def birth() -> float:
    """Return when this process began, by the monotonic clock; now where the system does not say."""
    now = time.monotonic()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return now
    return now - age


began = birth()
"""When the job's own process began; in the server's child too."""


def place(owner: int) -> Path:
    """Return the folder of the sockets of a run."""
    return Path(tempfile.gettempdir(), f"sclatent-{os.getuid()}-{owner}")


def hand_over(script: str) -> float:
    """Let the server run a script and end as it ends; return where it is to run here.

    Parameters
    ----------
    script
        The file that Snakemake runs.

    Returns
    -------
    float
        When the job began, by the monotonic clock.
    """
    owner = os.environ.get(OWNER)
    if owner and not served and ALONE not in os.environ and sys.platform == "linux":
        with contextlib.suppress(OSError):
            server = connect(int(owner))
            ask(server, script)
            wait(server)
    return began


def connect(owner: int) -> socket.socket:
    """Return a connection to the run's server for this Python; the first that asks starts it.

    Raises
    ------
    OSError
        When there can be none.
    """
    folder = place(owner)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o177077 != 0o040000:
        raise PermissionError(f"{folder} is not ours alone")
    entry = os.open(folder, os.O_RDONLY)  # a socket's whole path would often be too long
    path = f"/proc/self/fd/{entry}/{hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]}"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError:
            pass  # another job was first
        else:
            listener.listen(100)
            start(listener, owner)
    server = socket.socket(socket.AF_UNIX)
    for _ in range(100):
        try:
            server.connect(path)
            break
        except ConnectionRefusedError:  # it is bound and does not listen yet, or has ended
            time.sleep(0.02)
    os.close(entry)
    return server


def start(listener: socket.socket, owner: int) -> None:
    """Start a server on a socket that listens."""
    environment = {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in THREADS}}
    code = f"""import sys; sys.path.append({str(Path(__file__).parents[1])!r})
from sclatent import forkserver
forkserver.serve({listener.fileno()}, {owner})"""
    subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        env=environment,
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ask(server: socket.socket, script: str) -> None:
    """Send what a child needs to run a script as this process would."""
    request = {"script": script, "began": began, "path": sys.path}
    request |= {"cwd": os.getcwd(), "env": dict(os.environ)}
    socket.send_fds(server, [b"\n"], [0, 1, 2])
    server.sendall(f"{json.dumps(request)}\n".encode())


def wait(server: socket.socket) -> None:
    """Pass signals on to the child until it ends, and end as it does."""
    answers = server.makefile("r")
    child = int(answers.readline() or 0)
    if not child:
        return

    def pass_on(number, frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = answers.readline()
    if not status:
        print("ERROR the process that jobs are forked from was killed", file=sys.stderr)
    code = int(status or 1)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(descriptor: int, owner: int) -> None:
    """Fork for each request that comes to a socket until the owner ends."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (*SIGNALS, signal.SIGINT)}
    waiting = selectors.DefaultSelector()
    listener = socket.socket(fileno=descriptor)
    waiting.register(listener, selectors.EVENT_READ, partial(accept, former))
    try:
        waiting.register(os.pidfd_open(owner), selectors.EVENT_READ, partial(finish, owner))
        while True:
            for key, _ in waiting.select():
                key.data(waiting, key.fileobj)
    except OSError:  # it has ended, or the kernel cannot watch it
        finish(owner)


def finish(owner: int, *_) -> None:
    """End the server and what it forked."""
    shutil.rmtree(place(owner), ignore_errors=True)
    os._exit(0)


def accept(former: dict, waiting: selectors.BaseSelector, listener: socket.socket) -> None:
    """Fork for a request; where that fails, its job runs by itself.

    `former` is what handles a job's signals.
    """
    client, _ = listener.accept()
    streams, (report, reported) = [], os.pipe()
    try:
        _, streams, *_ = socket.recv_fds(client, 1, 3)
        request = json.loads(client.makefile("rb").readline())
        sys.path.extend(path for path in request["path"] if path not in sys.path)
        preload(request["script"])
        gc.freeze()
        child = os.fork()
    except (OSError, ValueError):
        client.close()
        os.close(report)
    else:
        if child == 0:
            run(request, streams, reported, former)
        Job(waiting, client, child, report)
    for descriptor in (reported, *streams):
        os.close(descriptor)


class Job:
    """A child at work, and the process that waits for it."""

    def __init__(self, waiting, client: socket.socket, child: int, report: int):
        self.waiting, self.client, self.child, self.report = waiting, client, child, report
        self.ended = os.pidfd_open(child)
        waiting.register(self.ended, selectors.EVENT_READ, self.end)
        waiting.register(client, selectors.EVENT_READ, self.hang_up)
        self.tell(child)

    def tell(self, number: int) -> None:
        """Send a number to the process that waits."""
        with contextlib.suppress(OSError):
            self.client.sendall(f"{number}\n".encode())

    def hang_up(self, waiting, client) -> None:
        """End a child whose job was killed."""
        if client.fileno() < 0:  # it has ended at the same moment
            return
        waiting.unregister(client)
        os.kill(self.child, signal.SIGKILL)

    def end(self, waiting, ended) -> None:
        """Tell how a child ended, and import what it imported."""
        waiting.unregister(ended)
        with contextlib.suppress(KeyError):
            waiting.unregister(self.client)
        _, status = os.waitpid(self.child, 0)
        self.tell(os.waitstatus_to_exitcode(status))
        self.client.close()
        os.close(ended)
        os.set_blocking(self.report, False)
        with contextlib.suppress(BlockingIOError):
            load(os.read(self.report, 1 << 20).decode().split())
        os.close(self.report)


def preload(script: str) -> None:
    """Import what a script imports at its top."""
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        names = []
        for node in ast.parse(Path(script).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        load(names)


def load(names: list[str]) -> None:
    """Import modules; what cannot be imported, or is none, is left to the child."""
    for name in names:
        if name not in sys.modules:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                importlib.import_module(name)


def run(request: dict, streams: list[int], reported: int, former: dict) -> None:
    """Be the job: run its script in this child, report what it imported, and end."""
    known, code = set(sys.modules), 1
    try:
        become(request, streams, former)
        code = execute(request["script"])
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        names = [name for name in sys.modules if name not in known]
        roots = [name for name in names if name.rpartition(".")[0] not in {*names, "__main__"}]
        os.set_blocking(reported, False)
        os.write(reported, "\n".join(roots).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def become(request: dict, streams: list[int], former: dict) -> None:
    """Take over what the job's own process has: streams, folder, environment, signals."""
    global served, began
    served, began = True, request["began"]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for number, handler in former.items():
        signal.signal(number, handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])


def execute(script: str) -> int:
    """Run a script as the main module and return its exit code."""
    main = type(sys)("__main__")
    main.__file__ = script
    sys.modules["__main__"], sys.argv = main, [script]
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), main.__dict__)
    except SystemExit as error:
        return exit_code(error)
    except BaseException as error:
        error = error.with_traceback(error.__traceback__.tb_next)  # it begins in the script
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def exit_code(error: SystemExit) -> int:
    """Return the exit code that Python gives a process that raises this."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1
