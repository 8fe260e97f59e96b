import re

import pytest

from sclatent.errors import InputError, nearest, problem, status

CODE = re.compile(r"[\"'](E[1-5]\d\d)[\"' ]")


def listed(root) -> list[str]:
    return re.findall(r"^\| (E\d+) \|", (root / "docs/errors.md").read_text(), re.M)


def test_a_problem_names_code_place_fault_and_fix():
    line = problem("E201", "a.h5ad obs['batch']", "there is no such column", "name one")
    assert line == "E201 a.h5ad obs['batch']: there is no such column. Fix: name one"


def test_a_problem_is_one_line_whatever_the_data_hold():
    line = problem("E203", "a.h5ad", "batch 'd\n7\x1b[31m\r' is small", "β")
    assert line == r"E203 a.h5ad: batch 'd\n7\x1b[31m\r' is small. Fix: β"


def test_an_error_holds_all_its_lines():
    error = InputError("first", "second")
    assert error.problems == ["first", "second"]
    assert str(error) == "first\nsecond"


@pytest.mark.parametrize(
    ("code", "number"),
    [("E108", 64), ("E203", 65), ("E301", 66), ("E310", 65), ("E335", 75), ("E400", 70)],
)
def test_the_exit_code_follows_from_the_first_problem(code, number):
    assert InputError(f"{code} a: b. Fix: c", "E108 d: e. Fix: f").status == number


def test_every_code_is_listed_once_in_order_and_every_listed_code_is_used(root):
    sources = [*(root / "scripts/sclatent").rglob("*.py"), *(root / "workflow/rules").glob("*")]
    sources += (root / "workflow/plugin").rglob("*.py")
    used = {code for path in sources for code in CODE.findall(path.read_text())}
    assert listed(root) == sorted(used)


def test_every_exit_code_is_explained(root):
    explained = set(re.findall(r"^\| (\d+) \|", (root / "docs/errors.md").read_text(), re.M))
    assert {str(status(code)) for code in listed(root)} == explained


def test_the_nearest_name_is_found_whatever_its_case():
    assert nearest("Batch", ["donor", "batch"]).startswith("did you mean 'batch'?")
    assert nearest("UNKNOWN", ["Unknown", "T cell"]).startswith("did you mean 'Unknown'?")


def test_names_without_a_neighbour_are_listed_and_cut():
    assert nearest("xyz", ["donor"]) == "there are: donor"
    assert nearest("xyz", range(100)).endswith(", ...")
