"""What all tests share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SCLATENT_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real counts, or a skip that says why."""
    if not (SHARED / "SHA256SUMS").is_file():
        pytest.skip(f"the folder of real counts is not here: {SHARED} (set SCLATENT_DATA)")
    return SHARED
