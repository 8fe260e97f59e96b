from sclatent.errors import InputError, nearest, problem


def test_a_problem_names_place_fault_and_fix():
    line = problem("a.h5ad obs['batch']", "there is no such column", "name one")
    assert line == "a.h5ad obs['batch']: there is no such column. Fix: name one"


def test_an_error_holds_all_its_lines():
    error = InputError("first", "second")
    assert error.problems == ["first", "second"]
    assert str(error) == "first\nsecond"


def test_the_nearest_name_is_found_whatever_its_case():
    assert nearest("Batch", ["donor", "batch"]).startswith("did you mean 'batch'?")
    assert nearest("UNKNOWN", ["Unknown", "T cell"]).startswith("did you mean 'Unknown'?")


def test_names_without_a_neighbour_are_listed_and_cut():
    assert nearest("xyz", ["donor"]) == "There are: donor"
    assert nearest("xyz", range(100)).endswith(", ...")
