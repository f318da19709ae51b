"""The real disk and the pessimistic one do the same, as far as programs see."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from edge.updates.disk import Disk, RealDisk

from .crash_disk import CrashDisk


@pytest.fixture(params=["real", "pessimistic"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return RealDisk(tmp_path / "root") if request.param == "real" else CrashDisk()


def test_files_are_written_appended_cut_off_and_read(disk: Disk) -> None:
    disk.write("a", b"one")
    assert (disk.read("a"), disk.size("a")) == (b"one", 3)
    assert disk.digest("a") == hashlib.sha256(b"one").digest()
    disk.append("a", 2, b"ly")
    assert disk.read("a") == b"only"
    disk.append("a", 0, b"x")
    assert disk.read("a") == b"x"
    disk.append("new", 0, b"made")
    assert disk.read("new") == b"made"


def test_what_is_not_there_is_said(disk: Disk) -> None:
    for act in (lambda: disk.read("no"), lambda: disk.sync("no"), lambda: disk.rename("no", "other")):
        with pytest.raises(FileNotFoundError):
            act()
    with pytest.raises(FileNotFoundError):
        disk.write("no/a", b"")
    assert disk.size("no") is None and disk.digest("no") is None and disk.list("no") == []
    disk.remove("no")


def test_folders_move_whole_and_go_with_all_that_is_in_them(disk: Disk) -> None:
    disk.make_folder("x/.y")
    disk.make_folder("x/.y")
    disk.write("x/.y/file", b"1")
    disk.sync("x/.y/file")
    disk.sync_folder("x/.y")
    disk.rename("x/.y", "x/z")
    disk.sync_folder("x")
    assert (disk.list("x"), disk.read("x/z/file")) == (["z"], b"1")
    disk.make_folder("x/other")
    disk.write("x/other/a", b"")
    with pytest.raises(OSError):
        disk.rename("x/other", "x/z")  # something is in the way
    disk.remove("x")
    assert disk.list("") == []


def test_a_rename_replaces_a_file_at_once(disk: Disk) -> None:
    disk.write("a", b"new")
    disk.write("b", b"old")
    disk.rename("a", "b")
    assert (disk.list(""), disk.read("b")) == (["b"], b"new")


def states(disk: CrashDisk) -> list[dict[str, object]]:
    return list(disk.states(10_000, random.Random(0)))


def test_a_cut_may_leave_anything_of_what_was_not_synced_and_nothing_else() -> None:
    disk = CrashDisk({"kept": b"kept", "a": b"old!"})
    disk.write("a", b"new!")
    contents = {state["a"] for state in states(disk)}
    assert {b"old!", b"new!", b"", b"ne", b"\0\0\0\0", b"olw!"} <= contents
    assert {state["kept"] for state in states(disk)} == {b"kept"}
    disk.sync("a")
    assert [state["a"] for state in states(disk)] == [b"new!"]


def test_names_that_were_not_synced_are_old_or_new_each_by_itself() -> None:
    disk = CrashDisk({"a": b"1", "b": b"2"})
    disk.rename("a", "c")
    disk.rename("b", "d")
    assert {tuple(sorted(state)) for state in states(disk)} == {("a", "b"), ("b", "c"), ("a", "d"), ("c", "d")}
    disk.sync_folder("")
    assert {tuple(sorted(state)) for state in states(disk)} == {("c", "d")}


def test_a_synced_file_without_a_synced_name_may_be_gone() -> None:
    disk = CrashDisk()
    disk.write("a", b"1")
    disk.sync("a")
    assert {tuple(state) for state in states(disk)} == {(), ("a",)}
