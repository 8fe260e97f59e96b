"""Archives unpack to what they hold, and never anywhere else or to more than allowed."""

import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from sclatent.data.archives import extract, find_samples, is_archive
from sclatent.errors import InputError

GOOD = {"a/matrix.mtx": b"1", "a/barcodes.tsv": b"2", "b/outs/matrix.mtx.gz": b"3"}


def write_tar(path, members=GOOD, **fields):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, members=GOOD, mode=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "top" / "into"
    folder.mkdir(parents=True)
    return folder


def files_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_archives_unpack_to_what_they_hold(name, tmp_path, into):
    path = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name)
    assert is_archive(path)
    extract(path, into)
    assert files_in(into) == GOOD


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("writer", [write_tar, write_zip])
def test_members_that_lead_outside_are_refused(name, writer, tmp_path, into):
    path = writer(tmp_path / "a", {name: b"x"})
    with pytest.raises(InputError, match=r"a: is refused: .*would lie outside"):
        extract(path, into)
    assert files_in(tmp_path).keys() == {"a"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path, into):
    path = write_tar(tmp_path / "a.tar", {"x": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(InputError, match="'x' is a link or a device"):
        extract(path, into)
    assert not list(into.iterdir())


def test_a_link_in_a_zip_is_refused(tmp_path, into):
    path = write_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(InputError, match="'x' is a link or a device"):
        extract(path, into)


@pytest.mark.parametrize("writer", [write_tar, write_zip])
def test_no_more_is_unpacked_than_allowed(writer, tmp_path, into):
    path = writer(tmp_path / "a", {"x": b"0" * 600, "y": b"0" * 600})
    with pytest.raises(InputError, match="unpack to more than is allowed"):
        extract(path, into, max_bytes=1000)
    assert sum(map(len, files_in(into).values())) <= 1000


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_bomb_is_refused_by_its_ratio(name, tmp_path, into):
    bomb = {"x": bytes(30_000_000)}
    path = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, bomb)
    with pytest.raises(InputError, match="unpack to more than is allowed"):
        extract(path, into)
    assert sum(map(len, files_in(into).values())) <= 11_000_000


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_a_damaged_archive_is_refused_by_name(name, tmp_path, into):
    path = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name)
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        extract(path, into)


def test_samples_are_named_by_prefix_folder_or_file(tmp_path):
    for name in (
        "one/filtered_feature_bc_matrix/matrix.mtx.gz",
        "two/matrix.mtx",
        "GSM3_x_matrix.mtx.gz",
        "GSM4_y_matrix.mtx.gz",
        "five.h5",
        "__MACOSX/two/matrix.mtx",
        "two/._matrix.mtx",
        "other/one/matrix.mtx",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(find_samples(tmp_path)) == {"one", "one-2", "two", "GSM3_x", "GSM4_y", "five"}


def test_what_is_no_archive_is_not_taken_for_one(tmp_path):
    (tmp_path / "a").write_text("cell,gene\n")
    assert not is_archive(tmp_path / "a")
    assert not is_archive(tmp_path)


def test_what_is_gzipped_and_broken_off_is_no_archive(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 99)[:200])
    assert not is_archive(path)
