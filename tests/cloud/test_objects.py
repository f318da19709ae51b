"""Clips as objects: whole or not at all, the same however often they are put, and nowhere else than they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud.errors import ObjectError
from cloud.objects import Objects, clip_key

KEY = clip_key("car", bytes(16), 7)


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


def test_what_is_not_there_is_one_line(objects: Objects) -> None:
    with pytest.raises(ObjectError) as error:
        objects.get(KEY)
    assert "\n" not in str(error.value)


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "gopher://somewhere"):
        with pytest.raises(ObjectError, match="expected a folder or s3"):
            Objects(place)
