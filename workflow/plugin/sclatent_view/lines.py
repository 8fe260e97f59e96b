"""The view of a run where there is no terminal: a line for each job that ended."""

import time

from .jobs import Job, Run

PAUSE = 60.0
"""Seconds between two lines on a job that takes long."""


class Lines:
    """Plain lines in a stream, such as a file or the log of a service that tests."""

    def __init__(self, stream):
        self.stream = stream
        self.spoken = {}

    def begin(self, run: Run) -> None:
        """Say how much there is to do."""
        jobs = run.count(2)
        self.say(f"{jobs} {'job' if jobs == 1 else 'jobs'} to run")

    def say(self, text: str, style: str = "") -> None:
        """Write a line; styles are for terminals."""
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def finished(self, run: Run, job: Job) -> None:
        """Write the line of a job that is done."""
        done, jobs = run.count(0), run.count(2)
        self.say(f"[{done:{len(str(jobs))}}/{jobs}] {job.name}: {job.seconds:.1f} s")

    def refresh(self, run: Run) -> None:
        """Say at times what a job that takes long is at."""
        now = time.time()
        for job in run.jobs.values():
            key = job.name, job.began
            if job.said and now - self.spoken.setdefault(key, job.began) >= PAUSE:
                self.spoken[key] = now
                self.say(f"{job.name}: {job.said}")

    def end(self) -> None:
        """Leave the stream as it is."""
