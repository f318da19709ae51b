"""An output is whole or not there, and takes the place of nothing that is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.drive.writer import DriveWriter
from edge.durable import refuse_output, replacing, unfinished
from edge.errors import ConfigError


def test_what_was_written_takes_the_place_and_the_mode_of_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "drive.mcap"
    out.write_text("old")
    out.chmod(0o640)
    link = tmp_path / "link.mcap"
    link.symlink_to(out)
    with replacing(link) as part:
        part.write_text("new")
        assert out.read_text() == "old"
    assert link.is_symlink()
    assert out.read_text() == "new"
    assert out.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drive.mcap", "link.mcap"]


def test_what_a_killed_run_left_is_written_over_and_what_another_run_writes_is_not(tmp_path: Path) -> None:
    out = tmp_path / "drive.mcap"
    unfinished(out).write_bytes(b"half a drive")
    with replacing(out) as part, DriveWriter(part):
        pass
    assert out.read_bytes().startswith(b"\x89MCAP")
    assert list(tmp_path.iterdir()) == [out]
    with DriveWriter(unfinished(out)):
        with pytest.raises(BlockingIOError, match="another run is writing"), replacing(out) as part, DriveWriter(part):
            pass
        assert unfinished(out).is_file()


def test_what_failed_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "drive.mcap"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(out) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_drive_that_is_being_written_is_no_output(tmp_path: Path) -> None:
    out = tmp_path / "drive.mcap"
    with DriveWriter(out), pytest.raises(ConfigError, match="expected a file that nobody writes"):
        refuse_output(out)
    refuse_output(out)
