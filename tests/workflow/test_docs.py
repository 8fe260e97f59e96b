import re

import pytest

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "config/README.md"]
PAGES += ["docs/cluster.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(root, page):
    text = (root / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (root / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(root, page):
    assert not re.findall(r"@[A-Z]+@|TODO|FIXME", (root / page).read_text())


def test_every_command_of_make_that_is_named_exists(root):
    rules = set(re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = set(
            re.findall(r"`make ([\w-]+)`|^    make ([\w-]+)", (root / page).read_text(), re.M)
        )
        assert {first or second for first, second in named} <= rules, page
