"""What a failure that is not the user's input means: disk, memory or permission, in one line.

Libraries wrap what the system says in errors of their own kinds, sometimes without its number or
the file's name. Both are looked for in the whole chain of errors and their texts.
"""

import errno
import math
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from sclatent import files
from sclatent.errors import InputError, problem

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up"}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
BROKEN = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT)
NUMBER = re.compile(r"(?:errno = |Os \{ code: )(\d+)")  # of HDF5, of safetensors
NAME = re.compile(r"(?:file|link) name = '([^']+)'|name = '([^']+)'")
NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|std::bad_alloc|failed to map segment|"
    r"out of memory|Unable to allocate",
    re.IGNORECASE,
)
ASKED = re.compile(r"(?:Unable|you tried) to allocate ([\d.]+) (bytes|[KMGTPE]iB)")


def in_words(error: BaseException, job: str, snakemake) -> InputError:
    """Return any error as one of a single line.

    Parameters
    ----------
    error
        What ended the job.
    job
        Its name, for the message.
    snakemake
        Its object, for its rule, its log and its outputs.
    """
    if isinstance(error, KeyboardInterrupt):
        return InputError(problem("E421", job, "it was interrupted", "run the same command again"))
    if lacks_memory(error):
        return InputError(out_of_memory(error, job, snakemake.rule))
    number, path = of_the_system(error)
    path = path or next(iter(snakemake.output), None) or "."
    if number is not None:
        line = disk_problem(number, Path(path))
        if line:
            return InputError(line)
    said = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {said} (an error inside sclatent)"
    fix = f"report it with the traceback in {snakemake.log[0]}"
    return InputError(problem("E400", job, what, fix))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def lacks_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on the machine or on the GPU."""
    return any(
        isinstance(link, MemoryError)
        or getattr(link, "errno", None) == errno.ENOMEM
        or (isinstance(link, RuntimeError | ImportError | OSError) and NO_MEMORY.search(str(link)))
        for link in chain(error)
    )


def out_of_memory(error: BaseException, job: str, rule: str) -> str:
    """Return the line for a job whose memory ran out, with what it needs where that is known."""
    scale = 1 if sys.platform == "darwin" else 1000
    peak, asked = scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, asked_for(error)
    what, enough = f"memory ran out; it held {files.size(peak)} at most", "..."
    if asked:
        needed = files.size(peak + asked)
        what += f" and asked for {files.size(asked)} more, so it needs {needed} or more"
        enough = math.ceil((peak + asked) / 1e6)
    fix = f"give it more, on a cluster with --set-resources {rule}:mem_mb={enough}, or fewer cells"
    return problem("E420", job, what, fix)


def asked_for(error: BaseException) -> float:
    """Return the bytes that could not be had, as NumPy or PyTorch says; 0 where neither does."""
    for link in chain(error):
        if match := ASKED.search(str(link)):
            return float(match[1]) * 1024 ** "bKMGTPE".index(match[2][0])
    return 0


def of_the_system(error: BaseException) -> tuple[int | None, str | None]:
    """Return the number of the system's error and the file it is about, where they are known."""
    number = path = None
    for link in chain(error):
        said = str(link)
        if number is None and getattr(link, "errno", None):
            number = link.errno
        if number is None and (match := NUMBER.search(said)):
            number = int(match[1])
        if path is None and isinstance(getattr(link, "filename", None), str):
            path = link.filename
        if path is None and (match := NAME.search(said)):
            path = match[1] or match[2]
    return number, path


def disk_problem(number: int, path: Path) -> str | None:
    """Return the line for an error of the file system; None for any other number."""
    path = path.with_name(re.sub(r"^\.\d+\.partial\.", "", path.name))
    if number in FULL:
        what = f"{FULL[number]}: {free(path)} are free"
        return problem("E410", str(path), what, "free space, or run with --directory elsewhere")
    if number == errno.EFBIG:
        limit = files.size(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
        what = f"a file may have {limit} here and would exceed it"
        return problem("E411", str(path), what, "raise the limit (ulimit -f)")
    if number == errno.ENOENT:
        return problem("E301", str(path), "there is no such file", "put it there and run again")
    if number in READ_ONLY and path.is_file():
        fix = "give yourself permission to read and write it"
        return problem("E303", str(path), "may not be opened", fix)
    if number in READ_ONLY:
        fix = "make the folder writable, or run with --directory elsewhere"
        return problem("E412", str(path), "cannot be created here", fix)
    if number in BROKEN:
        fix = "check the disk or the network file system, and run again"
        return problem("E413", str(path), "the system cannot read or write it", fix)
    return None


def free(path: Path) -> str:
    """Return the free bytes, for people, of the disk that a path is on."""
    there = next(folder for folder in (*path.absolute().parents, Path("/")) if folder.is_dir())
    return files.size(shutil.disk_usage(there).free)
