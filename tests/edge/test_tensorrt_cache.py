"""The plan cache: whole files of the right key or none; what can't be trusted is named."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BundleError
from edge.trt.plan_cache import PlanCache

KEY = {"onnx": "a" * 64, "tensorrt": "10.3.0", "cuda": "12.6", "sm": "8.7", "device": "Orin"}
CONTENT = b"plan\n\0" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def test_what_was_written_is_read(cache: PlanCache) -> None:
    cache.write("camera", KEY, CONTENT, {"not_int8": ["conv"]})
    entry = cache.read("camera", KEY)
    assert entry is not None
    assert entry.content == CONTENT
    assert entry.notes == {"not_int8": ["conv"]}


def test_what_was_never_written_is_not_there(cache: PlanCache) -> None:
    assert cache.read("camera", KEY) is None


@pytest.mark.parametrize("part", sorted(KEY))
def test_every_part_of_the_key_separates(cache: PlanCache, part: str) -> None:
    cache.write("camera", KEY, CONTENT, {})
    assert cache.read("camera", KEY | {part: "another"}) is None


def test_a_file_of_another_key_is_named(cache: PlanCache) -> None:
    other = KEY | {"tensorrt": "11.4.0"}
    cache.write("camera", other, CONTENT, {}).rename(cache.path("camera", KEY))
    with pytest.raises(BundleError, match=r"expected a plan for tensorrt 10\.3\.0, got one for 11\.4\.0$"):
        cache.read("camera", KEY)


def test_a_foreign_file_is_named(cache: PlanCache) -> None:
    cache.folder.mkdir()
    cache.path("camera", KEY).write_bytes(b"ftrt" + bytes(5000))
    with pytest.raises(BundleError, match=r"expected a plan of this cache, got another file$"):
        cache.read("camera", KEY)


def test_a_folder_in_the_place_of_a_plan_is_named(cache: PlanCache) -> None:
    cache.path("camera", KEY).mkdir(parents=True)
    with pytest.raises(BundleError, match=r"expected a plan of this cache, got: Is a directory$"):
        cache.read("camera", KEY)


@settings(max_examples=60)
@given(data=st.data())
def test_no_damage_is_read_as_a_plan(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    cache = PlanCache(tmp_path_factory.mktemp("plans"))
    path = cache.write("camera", KEY, CONTENT, {})
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        entry = cache.read("camera", KEY)
    except BundleError:
        return
    assert entry is not None
    assert (entry.content, entry.notes) == (CONTENT, {})  # only a space between words can have changed


def test_a_half_written_file_is_never_seen_under_its_name(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.write("camera", KEY, CONTENT, {})

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match=r"expected a folder to keep plans in, got: No space left on device$"):
        cache.write("camera", KEY, b"newer", {})
    monkeypatch.undo()
    entry = cache.read("camera", KEY)
    assert entry is not None
    assert entry.content == CONTENT
    assert list(cache.folder.iterdir()) == [path]


def test_what_was_used_last_is_kept_and_other_engines_are_left_alone(cache: PlanCache) -> None:
    keys = [KEY | {"onnx": f"{i:064x}"} for i in range(18)]
    beside = cache.write("camera-rear", KEY, CONTENT, {})
    os.utime(beside, ns=(1, 1))
    for i, key in enumerate(keys[:-1]):
        path = cache.write("camera", key, CONTENT, {})
        os.utime(path, ns=(i + 10, i + 10))  # one after the other, whatever the clock's grain
    assert cache.read("camera", keys[0]) is None  # the seventeenth took its place
    assert cache.read("camera", keys[1]) is not None  # used now
    cache.write("camera", keys[-1], CONTENT, {})
    kept = [i for i, key in enumerate(keys) if cache.path("camera", key).exists()]
    assert kept == [1, *range(3, 18)]
    assert beside.exists()


def test_what_a_killed_writer_left_goes_and_what_another_writes_stays(cache: PlanCache) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    cache.folder.mkdir()
    partials = [cache.folder / f".camera-{'a' * 24}.{pid}.partial" for pid in (dead.pid, os.getppid())]
    for partial in partials:
        partial.write_bytes(b"half")
    cache.write("audio", KEY, CONTENT, {})
    assert [partial.exists() for partial in partials] == [False, True]


def test_the_folder_is_for_this_user_alone(cache: PlanCache) -> None:
    cache.write("camera", KEY, CONTENT, {})
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("")
    with pytest.raises(OSError, match="expected a folder to keep plans in, got: "):
        PlanCache(tmp_path / "plans").write("camera", KEY, CONTENT, {})


def test_the_header_can_be_read_by_people(cache: PlanCache) -> None:
    line = cache.write("camera", KEY, CONTENT, {}).read_bytes().split(b"\n")[1]
    assert json.loads(line)["key"] == KEY
