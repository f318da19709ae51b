"""Clips as objects: whole or not at all, the same however often they are put, and nowhere else than they should be."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cloud.errors import ObjectError
from cloud.objects import Objects, clip_key

KEY = clip_key("car", bytes(16), 7, bytes(32))


@pytest.fixture(params=["folder", "memory:///", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "file":
        (tmp_path / "store").mkdir()
        return Objects((tmp_path / "store").as_uri())
    return Objects(str(tmp_path / "store") if request.param == "folder" else request.param)


def test_a_clip_comes_back_as_it_was_put_however_often(objects: Objects, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(os.urandom(3_000_000))
    for _ in range(3):
        objects.put(KEY, clip)
        assert objects.get(KEY) == clip.read_bytes()


def test_a_part_of_a_clip_can_be_read_alone(objects: Objects, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(bytes(range(256)) * 100)
    objects.put(KEY, clip)
    assert objects.size(KEY) == 25_600
    assert objects.get_range(KEY, 255, 259) == bytes([255, 0, 1, 2])
    assert objects.get_range(KEY, 25_598, 99_999) == bytes([254, 255])
    for start, end in ((5, 5), (-1, 3), (25_600, 25_601)):
        with pytest.raises(ObjectError) as error:
            objects.get_range(KEY, start, end)
        assert "\n" not in str(error.value)


def test_a_clip_is_copied_into_a_file_whole_or_not_at_all(objects: Objects, tmp_path: Path) -> None:
    clip, copy = tmp_path / "clip", tmp_path / "copies" / "clip"
    copy.parent.mkdir()
    clip.write_bytes(os.urandom(9_000_000))
    objects.put(KEY, clip)
    assert objects.download(KEY, copy) == 9_000_000 and copy.read_bytes() == clip.read_bytes()
    with pytest.raises(ObjectError):
        objects.download(clip_key("car", bytes(16), 8, bytes(32)), copy.with_name("none"))
    assert [path.name for path in copy.parent.iterdir()] == ["clip"]


def test_an_object_that_is_deleted_is_gone_however_often(objects: Objects, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(b"clip")
    objects.put(KEY, clip)
    for _ in range(2):
        objects.delete(KEY)
    with pytest.raises(ObjectError):
        objects.size(KEY)


def test_a_put_leaves_nothing_but_the_object(tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.write_bytes(b"clip")
    objects = Objects(str(tmp_path / "store"))
    objects.put(KEY, clip)
    objects.put(KEY, clip)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == [tmp_path / "store" / KEY]


def test_a_disk_without_links_keeps_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no links here")

    clip = tmp_path / "clip"
    clip.write_bytes(b"clip")
    objects = Objects(str(tmp_path / "store"))
    monkeypatch.setattr(os, "link", no_links)
    objects.put(KEY, clip)
    clip.write_bytes(b"other")
    assert objects.get(KEY) == b"clip"


def test_small_clips_are_kept_together_and_leave_nothing_else(objects: Objects, tmp_path: Path) -> None:
    items = [(clip_key("car", bytes(16), number, bytes(32)), os.urandom(number * 1_000)) for number in range(1, 9)]
    for _ in range(2):
        objects.put_contents(items)
    assert {key: objects.get(key) for key, _ in items} == dict(items)
    if (tmp_path / "store" / ".new").exists():
        assert not list((tmp_path / "store" / ".new").iterdir())


def test_small_clips_may_be_put_where_an_event_loop_runs(objects: Objects) -> None:
    async def put() -> None:
        objects.put_contents([(KEY, b"clip")])

    asyncio.run(put())
    assert objects.get(KEY) == b"clip"


def test_what_a_killed_process_left_goes_with_time(tmp_path: Path) -> None:
    Objects(str(tmp_path))
    young, old = tmp_path / ".new" / "young", tmp_path / ".new" / "old"
    for path in (young, old):
        path.write_bytes(b"half a clip")
    os.utime(old, (0, 0))
    Objects(str(tmp_path))
    assert young.exists() and not old.exists()


def test_what_is_not_there_is_one_line(objects: Objects) -> None:
    with pytest.raises(ObjectError) as error:
        objects.get(KEY)
    assert "\n" not in str(error.value)


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "gopher://somewhere"):
        with pytest.raises(ObjectError, match="expected a folder or s3"):
            Objects(place)


def test_who_only_reads_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match="expected a folder with objects, got none"):
        Objects(str(tmp_path / "mistyped" / "store"), make=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ObjectError):
        Objects(str(tmp_path), make=False).get(KEY)
    assert list(tmp_path.iterdir()) == []
