"""Snakemake's log records, turned into one view of a run.

`install` puts the handler in the place of Snakemake's own for the terminal. The log file of a run
has a handler of its own and stays as it is.
"""

import atexit
import contextlib
import logging
import os
import re
import threading

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from .jobs import Job, Log, Run
from .lines import Lines

OWN = "DefaultStreamHandler"  # how Snakemake names its handler for the terminal
EVERY = 1.0
"""Seconds between two looks at the logs of running jobs."""
FIRST = "Assuming unrestricted shared filesystem usage."
# What Snakemake says of every run, and what the view says better.
LEFT_OUT = (
    *(FIRST, "Building DAG of jobs", "Using shell:", "Provided cores", "Provided remote nodes"),
    *("Rules claiming more threads", "Conda environments: ignored", "Group jobs: inactive"),
    *("Select jobs to execute", "Singularity containers: ignored", "Removing output files of"),
    *("Exiting because a job execution failed", "Elapsed time:", "Shutting down, this"),
    "WorkflowError:\nAt least one job did not complete",
)
AGAIN = re.compile(r"Trying to restart job (\d+)\.")
ENDED = re.compile(r"\.(\w+)\.py' (?:returned non-zero|died with) ([\w .:<>]+)\.")
SUBMITTED = " has been submitted with "
STYLES = {"WARNING": "yellow", "NOTE": "cyan"}


def install(settings) -> "Handler | None":
    """Put the view in the place of Snakemake's lines on the terminal, and return it.

    Parameters
    ----------
    settings
        Snakemake's `OutputSettings`. Who asks for its own output by ``--printshellcmds``,
        ``--verbose``, ``--quiet`` or ``--debug-dag``, or for another logger, gets it, as does a
        dry run.
    """
    asked = settings.printshellcmds, settings.verbose, settings.quiet, settings.debug_dag
    own = next((handler for handler in logger.handlers if handler.name == OWN), None)
    if own is None or settings.dryrun or any(asked):
        return None
    handler = Handler(own, bars(own) or Lines(own.stream))
    logger.removeHandler(own)
    logger.addHandler(handler)
    atexit.register(handler.close)
    return handler


def bars(own: logging.StreamHandler):
    """Return the view for a terminal; None where there is none, or no `rich`.

    Nor are there bars where jobs write tracebacks into the terminal.
    """
    if not own.is_tty or os.environ.get("TERM") == "dumb" or os.environ.get("SCLATENT_DEBUG"):
        return None
    try:
        from .bars import Bars
    except ImportError:
        return None
    return Bars(own.stream, own.nocolor)


class Handler(logging.Handler):
    """Follows a run by Snakemake's events and by the logs of its jobs.

    Until a run begins, and if the view itself should fail, Snakemake's own handler has the
    terminal.

    Parameters
    ----------
    own
        Snakemake's handler.
    view
        Where things are shown: `lines.Lines` or `bars.Bars`.
    """

    def __init__(self, own: logging.Handler, view):
        super().__init__()
        self.own, self.view, self.run = own, view, Run()
        self.failed, self.status = {}, {}
        self.over = threading.Event()
        self.watch = None
        self.events = {
            LogEvent.RUN_INFO: self.begin,
            LogEvent.JOB_INFO: self.started,
            LogEvent.JOB_FINISHED: self.finished,
            LogEvent.JOB_ERROR: self.error,
            LogEvent.GROUP_ERROR: self.group_error,
            **dict.fromkeys((None, LogEvent.ERROR, LogEvent.RESOURCES_INFO), self.message),
        }
        self.has_started = False

    def emit(self, record: logging.LogRecord) -> None:
        """Show what a record says."""
        event = getattr(record, "event", None)
        self.has_started |= event == LogEvent.WORKFLOW_STARTED or record.msg == FIRST
        if self.view is not None and self.has_started:
            with self.spared():
                self.events.get(event, ignore)(record)
        if self.view is None or not self.has_started:
            self.own.handle(record)

    @contextlib.contextmanager
    def spared(self):
        """Give the terminal back to Snakemake's handler where the view fails; the run goes on."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self.view.end()
            self.view = None
            self.own.stream.write(f"NOTE the view of the run failed ({error!r}); it goes on\n")

    def begin(self, record) -> None:
        """Begin to show a run, and to look at the logs of its jobs."""
        self.run.plan(record.stats)
        self.view.begin(self.run)
        self.watch = threading.Thread(target=self.look, daemon=True)
        self.watch.start()

    def look(self) -> None:
        """Look at the logs of running jobs until the run ends."""
        while not self.over.wait(EVERY):
            with self.lock, self.spared():
                if self.view is None or self.over.is_set():
                    return
                for job in self.run.jobs.values():
                    self.listen(job)
                self.view.refresh(self.run)

    def listen(self, job: Job) -> None:
        """Show the lines in a job's log that concern the user."""
        for line in job.listen():
            level, _, text = line.partition(" ")
            self.view.say(f"{level} {job.name}: {text}", STYLES[level])

    def started(self, record) -> None:
        """Note a job that is handed over."""
        name = " ".join([record.rule_name, *map(str, record.wildcards.values())])
        log = Log(record.log[0]) if record.log else None
        self.run.add(record.jobid, Job(name, record.rule_name, log, record.local))

    def finished(self, record) -> None:
        """Show that a job is done."""
        if job := self.run.end(record.job_id):
            self.listen(job)
            self.view.finished(self.run, job)

    def error(self, record) -> None:
        """Show that a job failed, and why."""
        self.fail(record.jobid, record.rule_msg)

    def group_error(self, record) -> None:
        """Show what failed of jobs that were sent to a cluster together."""
        for job in record.job_error_info:
            self.fail(job["jobid"], record.msg)

    def fail(self, number: int, message: str | None) -> None:
        """Show that a job failed: by the errors in its log, or in the words of who ran it."""
        if (job := self.run.end(number, failed=True)) is None:
            return
        self.failed[number] = job
        self.listen(job)
        why = [message] if message else []
        status = self.status.pop(job.rule, "without a word")
        why += job.errors[:1] or ([] if message else [f"it ended with {status}"])
        more = [f"and {len(job.errors) - 1} more"] if len(job.errors) > 1 else []
        log = [f"log: {job.log.path}"] if job.log else []
        beside = f" ({', '.join(more + log)})" if more + log else ""
        self.view.say(f"FAILED {job.name}: {'; '.join(why)}{beside}", "bold red")

    def message(self, record) -> None:
        """Show what else Snakemake says."""
        text = self.own.format(record)
        again, ended = AGAIN.match(text), ENDED.search(text)
        if ended:  # of a job that failed: Snakemake's record of that follows
            self.status[ended[1]] = ended[2]
        elif again and (job := self.failed.pop(int(again[1]), None)):
            self.run.again(job.rule)
            self.view.say(f"NOTE {job.name}: it is tried again", STYLES["NOTE"])
        elif text and not is_left_out(record):
            style = "red" if record.levelno >= logging.ERROR else ""
            self.view.say(text, "yellow" if record.levelno == logging.WARNING else style)

    def close(self) -> None:
        """End the view: what comes now is plain."""
        with self.lock:
            self.over.set()
            if self.view is not None:
                with self.spared():
                    self.view.end()
        super().close()


def ignore(record: logging.LogRecord) -> None:
    """Show nothing of a record."""


def is_left_out(record: logging.LogRecord) -> bool:
    """Say whether a record is about what the view says better, or not at all."""
    text = str(record.msg or "")
    return text.startswith(LEFT_OUT) or SUBMITTED in text
