import errno
import re
from types import SimpleNamespace

import pytest

from sclatent import failures

JOB = SimpleNamespace(rule="train_scvi", log=["logs/job.log"], output=["results/a.h5ad"])


def said(error: BaseException) -> str:
    return failures.in_words(error, "train_scvi toy", JOB).problems[0]


def status(error: BaseException) -> int:
    return failures.in_words(error, "train_scvi toy", JOB).status


def test_a_full_disk_is_named_with_the_file_and_what_is_free(tmp_path):
    path = str(tmp_path / ".123.partial.a.h5ad")
    error = OSError(errno.ENOSPC, "No space left on device", path)
    assert said(error).startswith(f"E410 {tmp_path}/a.h5ad: the disk is full: ")
    assert " are free. Fix: free space" in said(error)
    assert status(error) == 74


@pytest.mark.parametrize(
    "text",
    [
        "Can't decrement id ref count (unable to extend file properly, errno = 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "full" })',
    ],
)
def test_a_full_disk_is_found_in_the_words_of_hdf5_and_safetensors(text):
    assert said(RuntimeError(text)).startswith("E410 results/a.h5ad: the disk is full")


def test_a_full_disk_is_found_below_other_errors():
    error = ValueError("cannot write")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded", "results/b.h5ad")
    assert said(error).startswith("E410 results/b.h5ad: the quota is used up")


@pytest.mark.parametrize(
    ("number", "line", "code"),
    [
        (errno.EFBIG, "E411 new/a: a file may have", 74),
        (errno.EROFS, "E412 new/a: cannot be created here", 73),
        (errno.EACCES, "E412 new/a: cannot be created here", 73),
        (errno.EIO, "E413 new/a: the system cannot read or write it", 74),
        (errno.ENOENT, "E301 new/a: there is no such file", 66),
    ],
)
def test_what_the_file_system_refuses_has_a_code_of_its_own(number, line, code):
    error = OSError(number, "no", "new/a")
    assert said(error).startswith(line)
    assert status(error) == code


def test_a_file_that_may_not_be_opened_is_an_input_that_is_missing(tmp_path):
    path = tmp_path / "a"
    path.touch()
    error = PermissionError(errno.EACCES, "no", str(path))
    assert said(error).startswith(f"E303 {path}: may not be opened")
    assert status(error) == 66


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_lack_of_memory_says_what_was_held_and_how_to_give_more(error):
    assert "memory ran out; it held" in said(error)
    assert "--set-resources train_scvi:mem_mb=" in said(error)
    assert status(error) == 75


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Unable to allocate 8.94 GiB for an array with shape (60000, 20000)", "9.6 GB"),
        ("Unable to allocate 800. bytes for an array with shape (100,)", "800 B"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 96000 bytes", "96 KB"),
    ],
)
def test_lack_of_memory_says_what_is_needed_where_the_library_says_what_it_asked_for(text, asked):
    error = ValueError("in a block")
    error.__cause__ = MemoryError(text)
    assert f" at most and asked for {asked} more, so it needs " in said(error)
    assert re.search(r"train_scvi:mem_mb=\d+, or fewer cells", said(error))


def test_what_a_gpu_asked_for_is_no_memory_of_the_job():
    line = said(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert "asked for" not in line
    assert "mem_mb=...," in line


def test_anything_else_is_an_error_inside_with_the_place_of_its_traceback():
    error = KeyError("x\ny")
    assert said(error).startswith(
        r"E400 train_scvi toy: KeyError: 'x\ny' (an error inside sclatent)"
    )
    assert said(error).endswith("traceback in logs/job.log")
    assert status(error) == 70


def test_errors_that_name_each_other_as_cause_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert said(first).startswith("E400")
