"""The view of a run on a terminal: a bar for all jobs, one per rule, and what running jobs say."""

import re
import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from .jobs import Job, Run

WIDEST = 30
NARROWEST = 6
"""Columns of a bar: at most, and those below which it is left out."""
EPOCH = re.compile(r"(epoch \d+/\d+) .*(validation \S+) nats.* (\d+ s left)")


class Bars:
    """Bars that stay below the lines of a run, and are gone at its end."""

    def __init__(self, stream, no_color: bool = False):
        self.console = Console(file=stream, no_color=no_color or None, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def begin(self, run: Run) -> None:
        """Show the bars."""
        self.live.start()
        self.refresh(run)

    def say(self, text: str, style: str = "") -> None:
        """Write a line above the bars, in a colour of `rich`."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def finished(self, run: Run, job: Job) -> None:
        """Let the bars grow."""
        self.refresh(run)

    def refresh(self, run: Run) -> None:
        """Draw what the run is at."""
        self.live.update(drawn(run, *self.console.size), refresh=True)

    def end(self) -> None:
        """Take the bars away."""
        self.live.stop()


def drawn(run: Run, width: int, height: int) -> Group:
    """Return the bars of a run, for the lower half of a terminal of so many columns and rows.

    Below the bar of all jobs stand the rules with running jobs, each with a line for every such
    job, then those that are done in part. The others are counted.
    """
    digits, widest = 2 * len(str(run.count(2))) + 1, max(map(len, [*run.rules, "all jobs"]))
    layout = min(widest, width // 2), digits, width
    took = clock(time.time() - run.began)
    rows = [bar("all jobs", [run.count(column) for column in range(3)], took, *layout)]
    running = {rule: [job for job in run.jobs.values() if job.rule == rule] for rule in run.rules}
    for rule in sorted(run.rules, key=lambda rule: not running[rule]):
        jobs, counts = running[rule], run.rules[rule]
        if jobs or (any(counts[:2]) and not has_ended(counts)):
            rows.append(bar(rule, counts, state(jobs), *layout))
            rows += [Text(spoken(job)[:width], style="cyan") for job in jobs if job.runs]
    room = max(2, height // 2) - 1
    rows[room:] = [Text("...", style="dim")] if len(rows) > room else []
    return Group(*rows, Text(others(run)[:width], style="dim"))


def others(run: Run) -> str:
    """Return how many rules have ended, and how many wait for others."""
    ended = sum(map(has_ended, run.rules.values()))
    begun = {job.rule for job in run.jobs.values()}
    begun |= {rule for rule, counts in run.rules.items() if any(counts[:2])}
    return f"{ended} of {len(run.rules)} rules have ended, {len(run.rules.keys() - begun)} wait"


def has_ended(counts: list[int]) -> bool:
    """Say whether all jobs of a rule are done or have failed."""
    return counts[0] + counts[1] >= counts[2]


def bar(name: str, counts: list[int], state: str, widest: int, digits: int, width: int) -> Text:
    """Return a row: a name, a bar, how many are done of how many, and a word on it."""
    done, failed, jobs = counts
    said = f"{f'{done}/{jobs}':>{digits}}  {state}"
    row = Text(f"{name[:widest]:{widest}} ", style="dim" if has_ended(counts) else "")
    room = min(WIDEST, width - len(row) - digits - len("  99 running") - 1)
    if room >= NARROWEST:
        full, broken = (room * count // max(1, jobs) for count in (done, failed))
        row.append("━" * full, "green").append("━" * broken, "red")
        row.append("─" * (room - full - broken) + " ", "dim")
    row.append(said)
    row.truncate(width)
    return row


def state(jobs: list[Job]) -> str:
    """Return how many jobs run, or wait on a cluster."""
    running = sum(job.runs for job in jobs)
    return f"{running} running" if running else f"{len(jobs)} waiting" if jobs else ""


def spoken(job: Job) -> str:
    """Return a line on a running job: which it is, for how long, and what it said last."""
    which = job.name.removeprefix(job.rule).strip()
    epoch = EPOCH.match(job.said)
    said = ", ".join(epoch.groups()) if epoch else job.said
    return "  " + "  ".join(filter(None, [which, clock(time.time() - job.began), said]))


def clock(seconds: float) -> str:
    """Return a time as a clock shows it, such as 4:05 or 1:00:00."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
