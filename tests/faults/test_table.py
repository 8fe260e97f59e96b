"""The list of fault cases itself."""

import re


def test_every_case_has_a_test_or_waits(root, waits):
    texts = [path.read_text() for path in (root / "tests/faults").glob("test_*.py")]
    tested = {int(number) for text in texts for number in re.findall(r"def test_case_(\d+)_", text)}
    assert tested | waits.keys() == set(range(1, 65))
