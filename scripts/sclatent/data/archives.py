"""Unpack a tar or zip of 10x files safely, and find the samples in it.

Python's own filters have been bypassed (CVE-2025-4517), so every member is checked here: only
files and folders are unpacked, under names that stay inside, and never more bytes than allowed.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sclatent import files
from sclatent.data.content import MAX_BYTES, MAX_RATIO, allowed, readable
from sclatent.data.tenx import matrix_files
from sclatent.errors import InputError, problem

MAX_MEMBERS = 100_000
CHUNK = 2**20


def is_archive(path) -> bool:
    """Say whether a file is a zip, or a tar, plain or compressed."""
    path = Path(path)
    try:
        return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))
    except (EOFError, zlib.error):  # gzipped and not all there: whoever reads it says so
        return False


def extract(path, into, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> None:
    """Unpack an archive into an empty folder.

    Parameters
    ----------
    path
        A tar (plain, gz, bz2, xz) or zip.
    into
        Where to.
    max_bytes
        Most bytes to unpack.
    max_ratio
        Most unpacked bytes per packed byte, beyond the first 10 MB.

    Raises
    ------
    InputError
        For a member that is a link or a device, has an absolute path or one with ``..``; when a
        limit is passed; when the archive is damaged. What was unpacked until then is harmless.
    """
    into = Path(into)
    room = min(allowed(path, max_bytes, max_ratio), shutil.disk_usage(into).free)
    members = zip_members if zipfile.is_zipfile(path) else tar_members
    with readable(path):
        for n_members, (name, is_file, source) in enumerate(members(path)):
            if n_members >= MAX_MEMBERS:
                refuse("E333", path, f"holds more than {MAX_MEMBERS:,} members")
            if is_file:
                room -= write_member(path, source, inside(path, into, name), room)


def tar_members(path) -> Iterator[tuple[str, bool, BinaryIO | None]]:
    """Yield name, whether it is a file, and content of the members of a tar."""
    with tarfile.open(path) as archive:
        for member in archive:
            check_name(path, member.name)
            if not (member.isreg() or member.isdir()):
                refuse("E331", path, f"'{member.name}' is a link or a device")
            yield member.name, member.isreg(), archive.extractfile(member)


def zip_members(path) -> Iterator[tuple[str, bool, BinaryIO | None]]:
    """Yield name, whether it is a file, and content of the members of a zip."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            check_name(path, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refuse("E331", path, f"'{member.filename}' is a link or a device")
            if member.is_dir():
                yield member.filename, False, None
            else:
                with archive.open(member) as source:
                    yield member.filename, True, source


def check_name(path, name: str) -> None:
    """Refuse a member's name that leads out of the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name or "\0" in name:
        refuse("E330", path, f"'{name}' would lie outside the folder it is unpacked to")


def inside(path, into: Path, name: str) -> Path:
    """Return where a member goes, once more sure that it is inside."""
    target = (into / name.replace("\\", "/")).resolve()
    if not target.is_relative_to(into.resolve()):
        refuse("E330", path, f"'{name}' would lie outside the folder it is unpacked to")
    return target


def write_member(path, source: BinaryIO, target: Path, room: int) -> int:
    """Write one member and return its bytes, never more than there is room for."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(target, "xb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > room:
                packed = files.size(Path(path).stat().st_size)
                refuse("E332", path, f"{packed} unpack to more than is allowed or fits on the disk")
            file.write(chunk)
    return written


def refuse(code: str, path, what: str):
    """Raise the error for an archive that is not unpacked."""
    fix = "unpack it yourself, look at it, and give the folders as samples"
    raise InputError(problem(code, str(path), f"is refused: {what}", fix))


def find_samples(folder) -> dict[str, Path]:
    """Return {sample: path} of what can be read below a folder.

    A sample is a 10x matrix, named by the prefix of its files, else by their folder, or a 10x
    HDF5 file, named by itself. Cell Ranger's own folder names say nothing and are passed over.
    """
    found: dict[str, Path] = {}
    folders = [Path(folder), *sorted(item for item in Path(folder).rglob("*") if item.is_dir())]
    for place in folders:
        if "__MACOSX" in place.parts:
            continue
        for prefix, matrix in matrix_files(place).items():
            add_sample(found, prefix.strip("_.-") or folder_name(place, Path(folder)), matrix)
        for path in sorted(place.glob("*.h5")):
            add_sample(found, path.stem, path)
    return found


def folder_name(place: Path, top: Path) -> str:
    """Return the name of the nearest folder that was not named by Cell Ranger."""
    dull = ("filtered_feature_bc_matrix", "filtered_gene_bc_matrices", "outs", "hg19", "GRCh38")
    names = [name for name in place.relative_to(top).parts if name not in dull]
    return names[-1] if names else place.name if place != top else "sample"


def add_sample(found: dict[str, Path], name: str, path: Path) -> None:
    """Add a sample; a name that is taken gets a number."""
    number = sum(key == name or key.rpartition("-")[0] == name for key in found)
    found[f"{name}-{number + 1}" if number else name] = path
