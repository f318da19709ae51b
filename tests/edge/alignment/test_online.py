"""The loop's own clocks: what the IMU feels is seen and is heard, and unrelated motion tells nothing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from edge.alignment.offset import Offset
from edge.alignment.online import Lags, OnlineClocks, shift_down_px, strips_of

from .rides import MS, SECOND, START_NS, Moment, ride


def run(moments: Iterator[Moment], clocks: OnlineClocks | None = None) -> OnlineClocks:
    clocks = clocks or OnlineClocks()
    for moment in moments:
        clocks.see(*moment)
    return clocks


def sure(offset: Offset | None) -> bool:
    return offset is not None and offset.is_sure


def test_cells_that_are_compared_together_count_as_one_after_the_other() -> None:
    rng, together, apart = np.random.default_rng(1), Lags(), Lags()
    for count in (1, 50, 2, 49):
        values, others = rng.normal(size=count), rng.normal(size=(count, len(apart.sums)))
        together.add_all(values, others)
        for value, other in zip(values.tolist(), others, strict=True):
            apart.add(value, other, 0.02)
    for ours, theirs in zip(vars(together).values(), vars(apart).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sound_ms, picture_ms", [(0, 0), (150, 0), (-200, 0), (0, 120), (0, -250), (90, 60)])
def test_each_clock_that_is_late_is_told_by_how_much(sound_ms: int, picture_ms: int) -> None:
    clocks = run(ride(sound_ns=sound_ms * MS, picture_ns=picture_ms * MS))
    assert sure(clocks.picture) and sure(clocks.sound) and sure(clocks.camera_sound)
    assert clocks.picture is not None and abs(clocks.picture.offset_ns - picture_ms * MS) <= 15 * MS
    assert clocks.sound is not None and abs(clocks.sound.offset_ns - sound_ms * MS) <= 15 * MS
    assert clocks.camera_sound is not None
    assert abs(clocks.camera_sound.offset_ns - (sound_ms - picture_ms) * MS) <= 25 * MS


@pytest.mark.parametrize("seed", range(4))
def test_motion_of_another_road_is_never_taken_for_sure(seed: int) -> None:
    clocks = OnlineClocks()
    for moment in ride(seed=seed, felt_seed=seed + 50):
        clocks.see(*moment)
        assert not sure(clocks.picture) and not sure(clocks.sound)


def test_nothing_is_told_before_there_is_enough() -> None:
    clocks = run(ride(seconds=12.0))
    assert clocks.picture is None and clocks.sound is None and clocks.camera_sound is None


def test_a_clock_that_steps_is_noticed_and_told_anew() -> None:
    clocks, told = OnlineClocks(), []
    for moment, stepped in zip(ride(90.0), ride(90.0, sound_ns=180 * MS)):
        clocks.see(*(moment if moment[0] < START_NS + 30 * SECOND else stepped))
        if clocks.sound is not None and clocks.sound.is_sure:
            told.append(clocks.sound.offset_ns / MS)
    assert abs(told[0]) < 15 and abs(told[-1] - 180) < 15


def test_frozen_and_thawed_clocks_go_on_as_if_nothing_had_been() -> None:
    whole, first = OnlineClocks(), OnlineClocks()
    moments = list(ride(30.0))
    for moment in moments:
        whole.see(*moment)
    run(iter(moments[:341]), first)
    frozen = pickle.dumps(first.freeze())
    run(iter(moments[341:400]), first)  # what is frozen must not move with the living
    later = OnlineClocks()
    later.thaw(pickle.loads(frozen))
    run(iter(moments[341:]), later)
    assert pickle.dumps(later.freeze()) == pickle.dumps(whole.freeze())


def _gaps(moments: Iterator[Moment]) -> Iterator[Moment]:
    """Everything that goes wrong with streams: none, late ones, repeats, other sizes, no numbers."""
    for n, (stamp_ns, small, sound, imu) in enumerate(moments):
        if n % 37 == 3:
            small = None
        if n % 53 == 5:
            small = np.zeros((1, 1), np.uint8)
        if n % 41 == 7:
            sound = []
        if n % 43 == 9:
            sound = [chunk._replace(rate_hz=0) for chunk in sound]
        if n % 97 == 50:
            sound = [chunk._replace(pcm=chunk.pcm[:0]) for chunk in sound]
        if n % 59 == 11:
            imu = [sample._replace(accel_mps2=(0.0, 0.0, float("nan"))) for sample in imu]
        if 200 < n < 240:
            imu = []
        yield stamp_ns - (300 * MS if n % 61 == 13 else 0), small, sound, imu
        if n % 71 == 17:
            yield stamp_ns, small, sound, imu


def test_broken_streams_neither_stop_it_nor_make_it_lie() -> None:
    clocks = run(_gaps(ride(60.0)))
    for offset in (clocks.picture, clocks.sound):
        assert not sure(offset) or (offset is not None and abs(offset.offset_ns) <= 25 * MS)


@pytest.mark.parametrize("missing", ["sound", "imu", "picture"])
def test_a_stream_that_never_comes_leaves_its_clock_untold(missing: str) -> None:
    clocks = OnlineClocks()
    for stamp_ns, small, sound, imu in ride(30.0):
        clocks.see(
            stamp_ns, None if missing == "picture" else small, [] if missing == "sound" else sound,
            [] if missing == "imu" else imu,
        )  # fmt: skip
    told = {"picture": clocks.picture, "sound": clocks.sound}
    assert [name for name, offset in told.items() if offset is None] == {
        "sound": ["sound"], "imu": ["picture", "sound"], "picture": ["picture"]
    }[missing]  # fmt: skip


@pytest.mark.parametrize("shift", [-1.4, -0.3, 0.0, 0.5, 1.2])
def test_a_picture_that_moved_down_is_measured(shift: float) -> None:
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (96, 160)).astype(np.float32), (0, 0), 3.0) * 2.0 - 120.0
    moved: Any = cv2.warpAffine(texture, np.float32([[1, 0, 0], [0, 1, shift]]), (160, 96))
    before, now = (strips_of(np.clip(one, 0, 255).astype(np.uint8)) for one in (texture, moved))
    assert shift_down_px(before, now) == pytest.approx(shift, abs=0.2)
