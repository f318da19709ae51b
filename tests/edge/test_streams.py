"""A table that would lose samples or never settle is refused at the start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge.errors import ConfigError
from edge.streams import DEADLINE_NS, MS, SECOND, STREAMS, Policy, Stream, ring_needed, validate

CAMERA, AUDIO, IMU, GNSS, VEHICLE, LIDAR = STREAMS


def test_default_table_is_valid() -> None:
    validate(STREAMS, DEADLINE_NS)


def test_ring_holds_what_a_frame_chooses_from_and_what_comes_while_it_waits() -> None:
    assert ring_needed(IMU, DEADLINE_NS) == 500 * (1000 + 20 + 100) // 1000 + 1
    assert ring_needed(GNSS, DEADLINE_NS) == 25 * (1500 + 20 + 100) // 1000 + 1 + 1


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ((), "one pacing stream first"),
        (STREAMS[1:], "one pacing stream first"),
        ((AUDIO, CAMERA), "one pacing stream first"),
        ((CAMERA, replace(CAMERA, name="rear")), "one pacing stream first"),
        ((CAMERA, IMU, IMU), "imu: expected one row"),
    ],
)
def test_rows_that_do_not_make_a_table(streams: tuple[Stream, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(streams, DEADLINE_NS)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (IMU, {"ring": ring_needed(IMU, DEADLINE_NS) - 1}, "ring of at least 561 samples"),
        (CAMERA, {"ring": 1}, "ring of at least"),
        (IMU, {"rate_hz": 0}, "positive rate"),
        (IMU, {"rate_hz": float("nan")}, "positive rate"),
        (IMU, {"rate_hz": float("inf")}, "positive rate"),
        (IMU, {"rate_hz": 2e9}, "positive rate"),
        (GNSS, {"lateness_ns": -1}, "no negative time"),
        (GNSS, {"tolerance_ns": -1}, "no negative time"),
        (LIDAR, {"ahead_ns": -1}, "no negative time"),
        (LIDAR, {"silence_ns": -1}, "no negative time"),
        (LIDAR, {"worth": -1.0}, "no negative"),
        (IMU, {"window_ns": 0}, "a window"),
        (GNSS, {"worth": 1.0}, "worth only"),
        (LIDAR, {"lateness_ns": 81 * MS}, "within the deadline"),
        (CAMERA, {"lateness_ns": DEADLINE_NS + 1}, "within the deadline"),
    ],
)
def test_row_that_can_not_work(row: Stream, changes: dict[str, Any], message: str) -> None:
    streams = tuple(replace(stream, **changes) if stream is row else stream for stream in STREAMS)
    with pytest.raises(ConfigError, match=message):
        validate(streams, DEADLINE_NS)


def test_error_names_the_row_and_what_it_expected() -> None:
    short = replace(IMU, ring=100)
    with pytest.raises(ConfigError, match=r"^stream imu: expected a ring of at least 561 .* got 100$"):
        validate((CAMERA, short), DEADLINE_NS)


def test_deadline_bounds_every_promise() -> None:
    with pytest.raises(ConfigError, match="within the deadline"):
        validate(STREAMS, 40 * MS)
    validate(STREAMS, 45 * MS)


def test_every_policy_is_in_the_default_table() -> None:
    assert {stream.policy for stream in STREAMS} == set(Policy)
    assert all(stream.silence_ns < 3 * SECOND for stream in STREAMS)
