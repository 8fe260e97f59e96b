"""Download a file and put it in place only when its size, type and hash are right.

Bytes go to ``<path>.part``, with ``<path>.part.json`` saying of which version of which address
they are, so that a broken download goes on where it stopped. The hash of the first download is
recorded in ``<path>.sha256`` (readable by ``sha256sum -c``) and asked of every later one.
"""

import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from sclatent import files
from sclatent.errors import InputError, problem

CHUNK = 2**20
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
LONGEST_PAUSE = 30  # seconds
PASSING = {408, 425, 429}  # refusals that pass, beside those of 500 and above
HDF5 = (0, b"\x89HDF\r\n\x1a\n")
GZIP = (0, b"\x1f\x8b")
SIGNATURES = {
    ".h5": HDF5,
    ".hdf5": HDF5,
    ".h5ad": HDF5,
    ".loom": HDF5,
    ".gz": GZIP,
    ".tgz": GZIP,
    ".zip": (0, b"PK"),
    ".tar": (257, b"ustar"),
}
HTML = (b"<!doctype html", b"<html", b"<head")


class Refused(Exception):
    """An address does not give the file; another may."""


class Broken(Exception):
    """The connection failed; the same address may give the file later."""


def fetch(
    source: str, path, sha256: str | None = None, mirrors=(), attempts: int = 5, pause: float = 1.0
) -> None:
    """Download a file to `path`.

    Parameters
    ----------
    source
        An http or https address.
    path
        Where the file goes.
    sha256
        The file's hash; without it the one recorded beside `path`, if any, is enforced.
    mirrors
        Other addresses of the same bytes, tried in turn.
    attempts
        How often each address is tried when the connection fails.
    pause
        Seconds before the second attempt; they double each time, up to 30.

    Raises
    ------
    InputError
        With one line per address when none gives the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_name(f"{path.name}.sha256")
    wanted = sha256 or recorded(record)
    problems = []
    for address in (source, *mirrors):
        try:
            with_retries(address, path, attempts, pause)
            found = check_hash(path, wanted, "the config" if sha256 else str(record))
        except (Refused, Broken) as error:
            problems.append(refusal(address, error))
            if address != [source, *mirrors][-1]:
                print(f"WARNING {address}: {error}; the next mirror follows")
            continue
        files.write_text(record, f"{found}  {path.name}\n")
        os.replace(partial(path), path)
        partial(path, ".json").unlink(missing_ok=True)
        print(f"{path}: {files.size(path.stat().st_size)}, sha256 {found}")
        return
    raise InputError(*problems)


def refusal(address: str, error: Exception) -> str:
    """Return the line for an address that did not give the file."""
    if isinstance(error, Broken):
        fix = "run again: the download goes on where it stopped; or name mirrors"
        return problem("E335", address, str(error), fix)
    fix = "open the address in a browser, correct source, sha256 or mirrors"
    return problem("E334", address, str(error), fix)


def recorded(record: Path) -> str | None:
    """Return the hash of an earlier download."""
    return record.read_text().split()[0] if record.is_file() else None


def partial(path: Path, suffix: str = "") -> Path:
    """Return where the bytes go (or what is known of them) until the file is whole."""
    return path.with_name(f"{path.name}.part{suffix}")


def with_retries(address: str, path: Path, attempts: int, pause: float) -> None:
    """Download to the partial file, again and again while the connection breaks."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise Refused("only http and https addresses are downloaded")
    for attempt in range(1, attempts + 1):
        try:
            return stream(address, path)
        except (requests.RequestException, urllib3.exceptions.HTTPError, Broken) as error:
            what = str(error) if isinstance(error, Broken) else f"connection failed: {error}"
        if attempt < attempts:
            print(f"{address}: {what}; attempt {attempt + 1} of {attempts} follows")
            time.sleep(min(pause * 2 ** (attempt - 1), LONGEST_PAUSE))
    raise Broken(f"{what} ({attempts} attempts)")


def stream(address: str, path: Path) -> None:
    """Download once, after the bytes that are already there when the server allows it."""
    part, known = partial(path), partial(path, ".json")
    headers = {"Accept-Encoding": "identity"}
    version = files.read_json(known) if known.is_file() and part.is_file() else {}
    start = part.stat().st_size if version.get("address") == address else 0
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version["version"]}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            part.unlink()
            raise Broken("the server has fewer bytes than are here already: start again")
        check_status(response)
        if response.status_code != 206 or not continues(response, start, version["version"]):
            if response.status_code == 206:
                part.unlink(missing_ok=True)
                raise Broken("the server sent another part than asked for: start again")
            start = 0
        remember(known, address, response)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        check_room(path, (total or 0) - start)
        write(response, part, start, total, path.name)
    if total is not None and part.stat().st_size != total:
        got = part.stat().st_size
        raise Broken(f"got {got:,} of {total:,} bytes")


def check_status(response) -> None:
    """Refuse what is not a file: errors that stay, and pages for people."""
    code = response.status_code
    if code >= 500 or code in PASSING:
        raise Broken(f"the server answered {code} {response.reason}")
    if code not in (200, 206):
        raise Refused(f"the server answered {code} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        where = f" after a redirect to {response.url}" if response.history else ""
        raise Refused(f"the server sent an HTML page{where}, not a file")


def continues(response, start: int, version: str) -> bool:
    """Say whether a 206 answer begins where the partial file ends, in the same version."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return start > 0 and begins and validator(response) in (None, version)


def validator(response) -> str | None:
    """Return what names the version of a file: a strong ETag or the date of its last change."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def remember(known: Path, address: str, response) -> None:
    """Record which version of which address the partial file holds, if it has a name."""
    version = validator(response)
    if version is not None:
        files.write_json(known, {"address": address, "version": version})
    elif response.status_code == 200:
        known.unlink(missing_ok=True)


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse a download that the disk cannot hold, before it begins."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        what = f"needs {files.size(n_bytes)}, {files.size(free)} are free"
        raise InputError(
            problem("E410", str(path), what, "free space, or move resources/ elsewhere")
        )


def write(response, part: Path, start: int, total: int | None, name: str) -> None:
    """Write the body of an answer to the partial file, with a line of progress now and then."""
    done, began = start, time.monotonic()
    shown = began
    with open(part, "ab" if start else "wb") as file:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            if done == 0:
                check_kind(chunk, name)
            file.write(chunk)
            done += len(chunk)
            if time.monotonic() - shown >= 5:
                shown = time.monotonic()
                print(progress(name, done, total, (done - start) / (shown - began)))
        file.flush()
        os.fsync(file.fileno())
    if done == 0:
        raise Broken("the server sent an empty file")


def progress(name: str, done: int, total: int | None, speed: float) -> str:
    """Return a line that says how far a download is; `speed` in bytes per second."""
    if total is None:
        return f"{name}: {files.size(done)}"
    left = (total - done) / max(speed, 1)
    return (
        f"{name}: {files.size(done)} of {files.size(total)} ({done / total:.0%}), {left:.0f} s left"
    )


def check_kind(head: bytes, name: str) -> None:
    """Refuse a file whose first bytes are not those of its suffix.

    Raises
    ------
    Refused
        For an HTML page under any name, and for another format than the suffix says.
    """
    if head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML):
        raise Refused("the server sent an HTML page, not a file")
    suffix = Path(name).suffix.lower()
    place, signature = SIGNATURES.get(suffix, (0, b""))
    if not head[place:].startswith(signature):
        raise Refused(f"the server sent something else than a {suffix} file: {head[:8]!r}")


def check_hash(path: Path, wanted: str | None, by: str) -> str:
    """Return the hash of the downloaded bytes; remove them when it is not the one wanted."""
    found = files.sha256(partial(path))
    if wanted is not None and found != wanted:
        partial(path).unlink()
        partial(path, ".json").unlink(missing_ok=True)
        raise Refused(f"its sha256 is {found}, {by} says {wanted}; the file was removed")
    return found
