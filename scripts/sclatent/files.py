"""Files: written safely, hashed, free of clocks.

A file appears under its name only when it is whole: it is written beside its place, synced and
renamed. Equal content gives equal bytes, so two runs can be compared by their hashes.

Beside what HDF5, NumPy or PyTorch read lies its SHA-256, as ``sha256sum -c`` reads it. It is asked
for before these libraries open a file: a flipped byte can make them crash or, worse, go on.
"""

import contextlib
import functools
import glob
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from sclatent.errors import InputError, problem

UNITS = ("B", "KB", "MB", "GB", "TB")
ROOM = 1.2  # times what a file will take must be free
FORMULA, QUOTED = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
FORGOTTEN = 86_400  # seconds after which a temporary file is nobody's


@contextlib.contextmanager
def safely(path: str | os.PathLike, hashed: bool = False, n_bytes: float = 0) -> Iterator[Path]:
    """Yield a temporary path in the same folder and put it in place when the block succeeds.

    The previous file survives an error in the block. The temporary name keeps the suffix, since
    many writers choose their format by it. What killed writers of this path left is removed; one
    path has one writer at a time, as Snakemake sees to.

    Parameters
    ----------
    path
        Of the file.
    hashed
        Whether its SHA-256 is to lie beside it.
    n_bytes
        What it will take, for `check_room`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path)
    check_room(path, n_bytes)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield partial
        put(partial, path, sha256(partial) if hashed else None)
    finally:
        partial.unlink(missing_ok=True)


def put(partial: Path, path: Path, digest: str | None = None) -> None:
    """Put a written file in its place, with its SHA-256 beside it where there is one.

    Between the two there is no hash rather than that of another file, so that a crash never makes
    a good file look bad. File and name are on the disk when this returns.
    """
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    if recorded(path) not in (None, digest):
        sidecar(path).unlink()
    os.replace(partial, path)
    sync_folder(path.parent)
    if digest is not None:
        write_text(sidecar(path), f"{digest}  {path.name}\n")


def sync_folder(folder: Path) -> None:
    """Sync the names of a folder's files, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no such call
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale(path: Path) -> None:
    """Remove temporary files of a path whose writer is dead or gave up long ago."""
    for partial in path.parent.glob(f".*.partial.{glob.escape(path.name)}"):
        process = re.match(r"\.(\d+)\.partial\.", partial.name)
        with contextlib.suppress(FileNotFoundError):
            old = time.time() - partial.stat().st_mtime > FORGOTTEN
            if process and (old or not is_alive(int(process[1]))):
                partial.unlink()


def is_alive(process: int) -> bool:
    """Say whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def check_room(path: Path, n_bytes: float) -> None:
    """Refuse to begin a file that the disk cannot hold.

    Raises
    ------
    InputError
        When less than `n_bytes` and a fifth more are free.
    """
    free = shutil.disk_usage(path.parent).free
    if n_bytes and ROOM * n_bytes > free:
        what = f"it needs about {size(ROOM * n_bytes)}, {size(free)} are free"
        raise InputError(
            problem("E410", str(path), what, "free space, or run with --directory elsewhere")
        )


def sidecar(path: str | os.PathLike) -> Path:
    """Return where the SHA-256 of a file lies."""
    return Path(f"{os.fspath(path)}.sha256")


def recorded(path: str | os.PathLike) -> str | None:
    """Return the SHA-256 that lies beside a file; ``""`` when what lies there is none."""
    if not sidecar(path).is_file():
        return None
    words = sidecar(path).read_bytes()[:1000].decode("utf-8", "replace").split()
    return words[0].lower() if words else ""


def verified(path: str | os.PathLike) -> Path:
    """Return a path once its bytes are sure to be those whose hash lies beside it.

    A file without one, such as a user's or a copy, is taken as it is.

    Raises
    ------
    InputError
        When the bytes are others.
    """
    path = Path(path)
    wanted = recorded(path) if path.is_file() else None
    if wanted is None:
        return path
    found = checked_sha256(str(path), signature(path))
    if found != wanted:
        what = f"its SHA-256 is {found}, {sidecar(path).name} says {wanted or 'none'}"
        fix = f"rm {path} and run again (a file of yours: fetch it anew, or rm {sidecar(path)})"
        raise InputError(problem("E321", str(path), what, fix))
    return path


def signature(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written anew."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


@functools.lru_cache(maxsize=1024)
def checked_sha256(path: str, signature: tuple[int, ...]) -> str:
    """Return the SHA-256 of a file; a job that opens a file again does not hash it again."""
    return sha256(path)


def sha256(path: str | os.PathLike) -> str:
    """Return the hexadecimal SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(n_bytes: float) -> str:
    """Return a size for people, such as ``4.2 MB`` (powers of 1000)."""
    for unit in UNITS[:-1]:
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} {UNITS[-1]}"


def write_text(path, text: str) -> None:
    """Write UTF-8 text safely."""
    with safely(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path, content, hashed: bool = False) -> None:
    """Write JSON with sorted keys, safely; `hashed` as for `safely`."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with safely(path, hashed) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path):
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def begins(pattern: re.Pattern, value) -> bool:
    """Say whether a value is text that begins so."""
    return isinstance(value, str) and bool(pattern.match(value))


def write_table(path, table) -> None:
    """Write a pandas DataFrame as tab-separated text without its index; ``.gz`` compresses.

    Numbers keep seven significant digits. Booleans are written as ``True`` and ``False``. Text that
    a spreadsheet would take for a formula gets a quote in front, which `read_table` takes off.
    """
    for column in table.select_dtypes(exclude=["number", "bool"]).columns:
        formula = table[column].map(functools.partial(begins, FORMULA)).astype(bool)
        if formula.any():
            texts = table[column].astype(object)
            table = table.assign(**{column: texts.mask(formula, "'" + texts.astype(str))})
    buffer = io.StringIO()
    table.to_csv(buffer, sep="\t", index=False, float_format="%.7g", lineterminator="\n")
    content = buffer.getvalue().encode("utf-8")
    if str(path).endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with safely(path) as partial:
        partial.write_bytes(content)


def read_table(path, **options):
    """Read a table written by `write_table`; the columns `cell` and `gene` are read as text."""
    import pandas as pd

    text = {"cell": str, "gene": str, "batch": str, "cell_type": str, "label": str}
    form = {"sep": "\t", "keep_default_na": False, "na_values": [""]}
    table = pd.read_csv(path, dtype=text, **form, **options)
    for column in table.select_dtypes(exclude=["number", "bool"]).columns:
        quoted = table[column].map(functools.partial(begins, QUOTED)).astype(bool)
        if quoted.any():
            table[column] = table[column].mask(quoted, table[column].str[1:])
    return table


def write_h5ad(path, adata) -> None:
    """Write an AnnData compressed, safely, with its hash beside it."""
    with safely(path, hashed=True, n_bytes=getattr(adata.X, "nbytes", 0) / 2) as partial:
        adata.write_h5ad(partial, compression="gzip", compression_opts=4)
