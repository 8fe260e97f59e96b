"""What every job does first: log, threads, and how it speaks when it fails."""

import atexit
import json
import os
import re
import resource
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from sclatent import failures, files, forkserver, provenance
from sclatent.errors import InputError, problem

DEBUG = "SCLATENT_DEBUG"  # in the environment: all that a job says is on the terminal too


class Tee:
    """Write to the log; where `DEBUG` is set, to the terminal too, under the job's name."""

    def __init__(self, terminal, log, name: str):
        self.terminal, self.log, self.name = terminal, log, name
        self.fresh, self.debug = True, bool(os.environ.get(DEBUG))

    def write(self, text: str) -> int:
        """Write text to the log, or to both."""
        self.log.write(text)
        for line in text.splitlines(keepends=True) if self.debug else []:
            self.terminal.write(f"{self.name} | {line}" if self.fresh else line)
            self.fresh = line.endswith("\n")
        if text.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Flush both."""
        self.terminal.flush()
        self.log.flush()

    def isatty(self) -> bool:
        """No cursor tricks: the lines of several jobs share the terminal."""
        return False

    def fileno(self) -> int:
        """Return the terminal's descriptor, for what writes below Python."""
        return self.terminal.fileno()


def start(snakemake) -> None:
    """Begin a job: copy its output to its log, set its threads, make failures readable.

    It stands before all other imports of a script: a process that has them already may run it
    (`forkserver`). When the job ends well it leaves a record of itself (`provenance.record`).

    Parameters
    ----------
    snakemake
        The object that Snakemake gives a script. `snakemake.params.threads`, where the rule has
        it, is the number of threads; it comes from the config, never from ``--cores``, because it
        is part of the result's identity. Jobs without it use one thread.
    """
    began = forkserver.hand_over(sys.argv[0])
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    name = " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    file = open(log, "w", encoding="utf-8")  # noqa: SIM115, it stays open until the job ends
    sys.stdout = Tee(sys.__stdout__, file, name)
    sys.stderr = Tee(sys.__stderr__, file, name)
    sys.excepthook = partial(explain, snakemake)
    sys.unraisablehook = keep
    provenance.place(snakemake).unlink(missing_ok=True)
    set_threads(int(snakemake.params.get("threads", 1)))
    forkserver.preload(sys.argv[0])
    before.update(spent())
    started = round(time.monotonic() - began, 3)
    atexit.register(provenance.record, snakemake, provenance.now(), cost, partial(process, started))


def explain(snakemake, kind, error, trace) -> None:
    """End a job that failed: its problems one line each, and the exit code in the log's last line.

    The log also holds the traceback of what is not the user's to mend; the terminal shows it
    where `DEBUG` is set. What no code can catch, as when HDF5 closes a file on a full disk, comes
    here too, without the script in its traceback: the log keeps it, and the job goes on to its own
    error. The process ends at once, since HDF5 crashes when it tidies up after a full disk.
    """
    if trace is not None and trace.tb_frame.f_code.co_name != "<module>":
        traceback.print_exception(kind, error, trace, file=sys.stderr.log)
        return
    mendable, debug = isinstance(error, InputError), bool(os.environ.get(DEBUG))
    log, name = sys.stderr.log, sys.stderr.name
    if not mendable or debug:
        stream = sys.stderr if debug else log
        traceback.print_exception(kind, error, trace, file=stream)
    if not mendable:
        error = failures.in_words(error, name, snakemake)
    for line in error.problems:
        print(f"ERROR {line}", file=sys.stderr)
    print(f"exit code {error.status}", file=log)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.status)


def keep(unraisable) -> None:
    """Keep in the log what could not be raised, as when a file is closed on a full disk."""
    parts = unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback
    traceback.print_exception(*parts, file=sys.stderr.log)


def set_threads(n_threads: int) -> None:
    """Set the threads of every library that this process has loaded or will load."""
    for variable in ("OMP", "MKL", "OPENBLAS", "NUMBA", "NUMEXPR"):
        os.environ[f"{variable}_NUM_THREADS"] = str(n_threads)
    import threadpoolctl

    threadpoolctl.threadpool_limits(n_threads)
    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        if n_threads > numba.config.NUMBA_DEFAULT_NUM_THREADS:
            cpus = numba.config.NUMBA_DEFAULT_NUM_THREADS
            what = f"{n_threads} threads are asked for, this job may use {cpus} CPUs"
            fix = (
                "lower it (threads are part of a result: it will differ a little), or ask for more"
            )
            raise InputError(problem("E110", "training.threads", what, fix))
        numba.config.reload_config()  # or the next compilation finds that the number has changed
        numba.set_num_threads(n_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)


def spent() -> dict:
    """Return the clock, the CPU seconds of this process, and the MB that it holds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_seconds": time.perf_counter(),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mb": resident("VmRSS"),
    }


def resident(which: str) -> float:
    """Return this process's resident set in MB: `VmRSS` now, `VmHWM` at its largest.

    What the kernel tells of a process's resources counts the one that started it too; it serves
    where there is no /proc.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    except (OSError, TypeError):
        scale = 1e6 if sys.platform == "darwin" else 1e3
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


before = spent()
"""What was spent when the job began."""


def cost(earlier: dict | None = None) -> dict:
    """Return what the job cost so far, beyond the start of Python and its imports.

    Parameters
    ----------
    earlier
        What its attempts before this one cost, where it goes on from them.

    Returns
    -------
    dict
        `wall_seconds`, `cpu_seconds` of this process, and `peak_memory_mb`: how much larger than
        at its start its resident set became.
    """
    now = spent() | {"peak_memory_mb": resident("VmHWM")}
    own = {name: round(value - before[name], 3) for name, value in now.items()}
    earlier = earlier or dict.fromkeys(own, 0.0)
    added = {name: round(own[name] + earlier[name], 3) for name in ("wall_seconds", "cpu_seconds")}
    return added | {"peak_memory_mb": max(own["peak_memory_mb"], earlier["peak_memory_mb"])}


def process(started: float) -> dict:
    """Return what its process adds to a job: seconds until it began, and MB with all packages."""
    return {"start_seconds": started, "peak_memory_mb": round(resident("VmHWM"), 1)}


def write_cost(path, earlier: dict | None = None) -> None:
    """Write what `cost` returns."""
    files.write_text(path, json.dumps(cost(earlier)) + "\n")
