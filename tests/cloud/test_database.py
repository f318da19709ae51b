"""The database as it is opened; commands on a folder that is no cloud's: one line, 2, and nothing is made there."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from cloud.database import connect
from cloud.errors import DatabaseError
from edge.command import main

COMMANDS = (
    "rollout list", "rollout watch r1", "rollout explain r1", "rollout log r1", "rollout replay r1", "rollout create 1",
    "rollout start r1", "rollout stop 1 --why smoke",
    "release list", "release show 1", "release revoke 1 --why smoke", "release lift 1", "release refresh",
    "release keys show", "gate show --release 1", "gate run --release 1",
    "cloud vehicles", "cloud vehicles --revoke car", "cloud gap", "cloud key list", "cloud key create ana",
    "cloud enrol-token car", "cloud ca crl", "cloud serve", "cloud serve --only web", "cloud serve --only control",
    "scenes list", "scenes show 1", "scenes summary car", "scenes jobs", "search tunnel", "campaign list",
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("holds", ["nothing", "something else"])
def test_a_folder_that_is_no_clouds_is_left_as_it_is(
    words: str, holds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROADFUSE_DATABASE", raising=False)
    folder = tmp_path / "cloud"
    folder.mkdir(0o755)
    if holds == "something else":
        (folder / "notes.txt").write_text("somebody's")
        (folder / "postgres").mkdir()
    before = sorted(folder.rglob("*"))
    assert main([*words.split(), "--data", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "expected" in said and "ca init" in said and said.count("\n") == 1, said
    assert sorted(folder.rglob("*")) == before


def test_times_are_told_in_utc_whatever_zone_the_database_is_in(database: str) -> None:
    """East of UTC, the last hours of the year 9999 would be beyond what a datetime holds."""
    engine = connect(database)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(database).database} SET timezone = 'Pacific/Kiritimati'"))
    engine.dispose()
    with engine.connect() as connection:
        told = connection.execute(text("SELECT timestamptz '9999-12-31 23:59:59+00'")).scalar_one()
    engine.dispose()
    assert (told.hour, told.utcoffset()) == (23, datetime.timedelta(0))


@pytest.mark.parametrize("url", ["postgresql://host:port/name", "no url"])
def test_a_url_that_does_not_parse_is_one_line(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"expected a URL postgresql://"):
        connect(url)
