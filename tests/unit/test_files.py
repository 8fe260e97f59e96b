import ast
import gzip
import os
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from sclatent import files
from sclatent.errors import InputError

WRITERS = {"dump", "save_file", "savefig", "savez", "savez_compressed", "to_csv", "tofile"}
WRITERS |= {"write_bytes", "write_h5ad", "write_text"}
ELSEWHERE = {
    "sclatent/data/archives.py": "into a folder for temporary files",
    "sclatent/data/download.py": "to a file that a later run goes on with, and puts in place",
    "sclatent/data/stored.py": "into a folder for temporary files, synced and hashed",
    "sclatent/files.py": "what puts files in place",
    "sclatent/job.py": "a log, line by line",
}


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "table.tsv"
    files.write_text(path, "good")
    with pytest.raises(ZeroDivisionError), files.safely(path) as partial:
        assert partial.write_text("half") / 0
    assert path.read_text() == "good"
    assert os.listdir(path.parent) == ["table.tsv"]


def test_a_writer_removes_what_killed_writers_of_the_same_path_left(tmp_path):
    killed = "import os, sys; open(f'.{os.getpid()}.partial.' + sys.argv[1], 'w'); os._exit(9)"
    for name in ("a[1].h5ad", "other.h5ad"):
        subprocess.run([sys.executable, "-c", killed, name], cwd=tmp_path)
    alive, old = (tmp_path / f".{pid}.partial.a[1].h5ad" for pid in (os.getppid(), os.getpid()))
    for path in (alive, old):
        path.touch()
    os.utime(old, (0, time.time() - 2 * files.FORGOTTEN))
    files.write_text(tmp_path / "a[1].h5ad", "good")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[0] == alive.name or left[1] == alive.name
    assert sum("other.h5ad" in name for name in left) == 1
    assert len(left) == 3


def test_a_file_that_the_disk_cannot_hold_is_not_begun(tmp_path):
    path = tmp_path / "large.h5ad"
    path.write_text("good")
    refused = pytest.raises(
        InputError, match=r"large.h5ad: it needs about 1.2e\+06 TB, .* are free"
    )
    with refused, files.safely(path, n_bytes=1e18):
        pytest.fail("it was begun")
    assert path.read_text() == "good"


def test_tables_come_back_with_their_names_and_numbers(tmp_path):
    table = pd.DataFrame(
        {"cell": ["1", "NA"], "value": [0.1234567891, np.nan], "kept": [True, False]}
    )
    for name in ("t.tsv", "t.tsv.gz"):
        files.write_table(tmp_path / name, table)
        again = files.read_table(tmp_path / name)
        assert again["cell"].tolist() == ["1", "NA"]
        assert again["value"].iloc[0] == pytest.approx(0.1234567891, rel=1e-6)
        assert np.isnan(again["value"].iloc[1])
        assert again["kept"].tolist() == [True, False]


def test_equal_tables_are_equal_bytes(tmp_path):
    table = pd.DataFrame({"cell": ["a"], "value": [1.5]})
    for name in ("one.tsv.gz", "two.tsv.gz"):
        files.write_table(tmp_path / name, table)
    assert files.sha256(tmp_path / "one.tsv.gz") == files.sha256(tmp_path / "two.tsv.gz")
    assert gzip.decompress((tmp_path / "one.tsv.gz").read_bytes()) == b"cell\tvalue\na\t1.5\n"


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (4_200_000, "4.2 MB"), (3e15, "3e+03 TB")]
)
def test_sizes_are_said_for_people(n_bytes, text):
    assert files.size(n_bytes) == text


def written(call: ast.Call) -> str | None:
    """Return what a call writes to, as it is written there, or None where it writes nothing."""
    name = ast.unparse(call.func).rpartition(".")
    words = [node for part in (*call.args, *call.keywords) for node in ast.walk(part)]
    modes = [word.value for word in words if is_mode(word)]
    opens = name[2] in ("open", "File") and any(set(mode) & set("wax+") for mode in modes)
    if (name[2] not in WRITERS and not opens) or name[0] == "files":
        return None
    takes = opens or name[2] not in ("write_bytes", "write_text")
    return ast.unparse(call.args[0]) if takes else name[0]


def is_mode(node) -> bool:
    """Say whether a part of a call is text that could be how a file is opened."""
    value = getattr(node, "value", None)
    return isinstance(value, str) and re.fullmatch(r"[rwaxbt+]{1,3}", value) is not None


def test_whatever_is_written_goes_to_a_temporary_file_that_is_put_in_place(root):
    found = set()
    for path in sorted((root / "scripts").rglob("*.py")):
        place = path.relative_to(root / "scripts").as_posix()
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Call]
        targets = {written(call) for call in calls} - {None, "partial", "buffer"}
        found |= {place} if targets else set()
    assert found == ELSEWHERE.keys()
