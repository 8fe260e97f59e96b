"""The list of cases is whole."""

import re


def test_every_case_has_a_test_or_waits(root, waits):
    found = set(waits)
    for path in (root / "tests/faults").glob("test_*.py"):
        found |= set(map(int, re.findall(r"^def test_case_(\d+)_", path.read_text(), re.M)))
    assert sorted(found) == list(range(1, 65))
