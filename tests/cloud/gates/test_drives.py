"""The drives of the gates are made once, whoever asks for them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloud.gates import drives
from cloud.gates.drives import prepare
from edge.errors import ConfigError


def test_a_drive_that_somebody_else_is_making_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    found: list[list[Path]] = []
    is_made_twice = threading.Event()
    other = threading.Thread(target=lambda: found.append(prepare(tmp_path, "short")))

    def record(_: object, path: Path) -> None:
        made.append(path)
        if len(made) == 1:
            other.start()
            is_made_twice.wait(0.5)
        elif path in made[:-1]:
            is_made_twice.set()
        path.touch()

    monkeypatch.setattr(drives, "_record", record)
    found.append(prepare(tmp_path, "short"))
    other.join()
    assert len(made) == len(set(made)) == len(drives.SHORT)
    assert found == [made, made]


def test_drives_that_are_all_there_are_told_and_their_folder_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives, "_record", lambda _, path: path.touch())
    prepare(tmp_path, "short")
    (tmp_path / ".lock").unlink()
    told: list[bool] = []
    prepare(tmp_path, "short", lambda _, is_new: told.append(is_new))
    assert told == [False, False] and not (tmp_path / ".lock").exists()


def test_a_set_that_there_is_not_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set: expected one of standard, short, got 'long'"):
        prepare(tmp_path / "drives", "long")
