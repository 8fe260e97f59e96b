"""What a run is at: its jobs, how many of each rule are done, and what the logs of jobs say."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

MOST = 1_000_000
"""Bytes of a log that are read at once."""


class Log:
    """The log of a job, read as it grows; what an earlier attempt left there is passed over."""

    def __init__(self, path: str):
        self.path = Path(path)
        self.old, self.position, self.rest = self.state(), 0, b""

    def state(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does; None where there is no file."""
        try:
            stat = os.stat(self.path)
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def new_lines(self) -> list[str]:
        """Return the whole lines that came since the last call."""
        state = self.state()
        if state is None or state == self.old:
            return []
        self.old = None
        if state[2] < self.position:
            self.position, self.rest = 0, b""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.position)
                found = file.read(MOST)
        except OSError:
            return []
        self.position += len(found)
        *lines, self.rest = (self.rest + found).split(b"\n")
        return [printable(line.decode(errors="replace")) for line in lines]

    @property
    def has_begun(self) -> bool:
        """Say whether the job has written to it."""
        return self.old is None and self.state() is not None


def printable(text: str) -> str:
    """Return text without characters that steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text).rstrip()


@dataclass
class Job:
    """A job that was handed over and has not ended."""

    name: str
    rule: str
    log: Log | None
    is_local: bool
    began: float = field(default_factory=time.time)
    said: str = ""
    errors: list[str] = field(default_factory=list)

    def listen(self) -> list[str]:
        """Read what is new in its log; return the lines that concern the user."""
        waited = not self.runs
        lines = [line for line in (self.log.new_lines() if self.log else []) if line]
        if waited and self.runs:
            self.began = time.time()
        if lines:
            self.said = lines[-1]
        self.errors += [line.removeprefix("ERROR ") for line in lines if line.startswith("ERROR ")]
        return [line for line in lines if line.startswith(("WARNING ", "NOTE "))]

    @property
    def runs(self) -> bool:
        """Say whether it has begun: one that was sent to a cluster may wait there."""
        return self.is_local or self.log is None or self.log.has_begun

    @property
    def seconds(self) -> float:
        """Return how long it took; on a cluster without its time in the queue."""
        try:
            if not self.is_local:
                record = json.loads(self.log.path.with_suffix(".json").read_text())
                return record["cost"]["wall_seconds"]
        except (OSError, ValueError, KeyError, AttributeError):
            pass
        return time.time() - self.began


@dataclass
class Run:
    """All jobs of a run: those under way, and {rule: [done, failed, all]}."""

    rules: dict[str, list[int]] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    def plan(self, counts: dict[str, int]) -> None:
        """Note how many jobs of each rule there are to do."""
        for rule, count in counts.items():
            if rule != "total":
                self.rules[rule] = [0, 0, count]

    def add(self, number: int, job: Job) -> None:
        """Note a job that was handed over, perhaps not for the first time."""
        self.rules.setdefault(job.rule, [0, 0, 1])
        self.jobs[number] = job

    def end(self, number: int, failed: bool = False) -> Job | None:
        """Note that a job has ended, and return it; None where it is not under way."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.rules[job.rule][1 if failed else 0] += 1
        return job

    def again(self, rule: str) -> None:
        """Note that a failed job of a rule is tried again."""
        self.rules[rule][1] -= 1

    def count(self, column: int) -> int:
        """Return a sum over the rules: of done (0), failed (1) or all jobs (2)."""
        return sum(counts[column] for counts in self.rules.values())
