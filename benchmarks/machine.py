"""What a measurement was made on, and whether the machine was quiet."""

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from parity_tables import processor

BUSY = 0.5
"""The load average from which on seconds say little: two busy processes spoil each other's."""
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""What the CPU's flags call instructions for bf16 products, on x86 and on ARM."""


def describe(packages: tuple, **more) -> dict:
    """Return the conditions of a measurement.

    Parameters
    ----------
    packages
        Their versions are named, where they are installed.
    more
        What else belongs to the conditions, such as `threads`.
    """
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "machine": processor(),
        "bf16": has_bf16(),
        "date": datetime.now(UTC).date().isoformat(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
        **more,
    }


def has_bf16() -> bool:
    """Say whether the CPU multiplies matrices of bf16 numbers by instructions of its own."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    flags = (line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features")))
    return bool(BF16.intersection(next(flags, [])))


def warn_if_busy() -> None:
    """Say so when something else is using the machine."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(
            f"WARNING the load average is {load:.1f}: something else is running, and the seconds "
            "will say little; wait until it is over",
            flush=True,
        )


def sentence(conditions: dict) -> str:
    """Return the conditions of a measurement in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in conditions["versions"].items())
    instructions = "with" if conditions["bf16"] else "without"
    return (
        f"{conditions['date']}, {conditions['machine']} ({instructions} bf16 instructions), load "
        f"at the start {conditions['load']}; Python {conditions['python']}, {versions}"
    )
