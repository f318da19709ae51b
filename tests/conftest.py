"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # no test fails for the time that it took
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings: ROADFUSE_DATA, or `../shared/data` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ROADFUSE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set ROADFUSE_DATA to run this test")
    return folder
