"""Faults do what they say, and every sample is accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from edge.drive import codec, topics
from edge.errors import ConfigError, DriveFormatError
from edge.samples import Frame
from export.world.delivery import WorldEvent
from export.world.faults import Fault, parse_fault
from export.world.simulate import START_NS, WorldConfig, simulate

SECONDS = 1.0


def drive(*faults: str) -> list[WorldEvent]:
    config = WorldConfig(
        3, SECONDS, "urban", faults=tuple(parse_fault(f) for f in faults), width_px=64, height_px=64, lidar=False
    )
    return list(simulate(config))


def of(events: list[WorldEvent], topic: str) -> list[WorldEvent]:
    return [e for e in events if e.topic == topic]


@pytest.fixture(scope="module")
def clean() -> list[WorldEvent]:
    return drive()


def test_drop_leaves_gaps_in_its_window_only(clean: list[WorldEvent]) -> None:
    events = drive("imu:drop@0.3-0.6")
    missing = {e.sequence for e in of(clean, topics.IMU)} - {e.sequence for e in of(events, topics.IMU)}
    assert missing == set(range(30, 60))
    assert [e.sequence for e in of(events, topics.AUDIO)] == [e.sequence for e in of(clean, topics.AUDIO)]


def test_partial_drop_takes_about_its_share() -> None:
    assert 30 < 100 - len(of(drive("imu:drop=0.5"), topics.IMU)) < 70


def test_delay_moves_arrivals_and_nothing_else(clean: list[WorldEvent]) -> None:
    late = {e.sequence: e for e in of(drive("gnss:delay@0.2-0.8=0.3"), topics.GNSS)}
    for e in of(clean, topics.GNSS):
        inside = 0.2 <= (e.capture_ns - START_NS) * 1e-9 < 0.8
        assert late[e.sequence].arrival_ns - e.arrival_ns == (300_000_000 if inside else 0)
        assert late[e.sequence].sample == e.sample


def test_duplicates_are_the_same_sample_again() -> None:
    events = of(drive("vehicle:duplicate@0-0.5"), topics.VEHICLE)
    counts = Counter(e.sequence for e in events)
    assert all(count == (2 if sequence < 25 else 1) for sequence, count in counts.items())
    for sequence in range(25):
        first, second = (e for e in events if e.sequence == sequence)
        assert first.sample == second.sample and first.arrival_ns < second.arrival_ns


def test_a_stall_ends_in_a_burst() -> None:
    events = of(drive("audio:stall@0.2-0.7"), topics.AUDIO)
    assert sorted(e.sequence for e in events) == list(range(50))
    end_ns = START_NS + 700_000_000
    held = [e for e in events if 10 <= e.sequence < 35]
    assert all(end_ns <= e.arrival_ns < end_ns + 40_000_000 for e in held)


def test_a_clock_step_moves_stamps_but_not_arrivals(clean: list[WorldEvent]) -> None:
    stepped = of(drive("imu:clock_step@0.5-0.8=-0.2"), topics.IMU)
    for before, after in zip(of(clean, topics.IMU), stepped, strict=True):
        inside = 50 <= before.sequence < 80
        assert after.capture_ns - before.capture_ns == (-200_000_000 if inside else 0)
        assert (after.sequence, after.arrival_ns) == (before.sequence, before.arrival_ns)


def test_corrupt_pictures_are_garbage_or_undecodable() -> None:
    events = of(drive("camera:corrupt"), topics.CAMERA)
    assert len(events) == 20
    broken = [e for e in events if e.payload is not None]
    assert 4 <= len(broken) <= 16
    for e in broken:
        with pytest.raises(DriveFormatError):
            codec.decode(topics.CAMERA, e.payload, e.sequence)
    for e in events:
        if e.payload is None:
            assert isinstance(e.sample, Frame)
            assert codec.decode_jpeg(e.sample.jpeg).shape == (64, 64, 3)


@pytest.mark.parametrize("stream", ["audio", "imu", "gnss", "can", "vehicle"])
def test_corrupt_payloads_do_not_decode(stream: str) -> None:
    for e in of(drive(f"{stream}:corrupt@0-0.3"), f"/{stream}"):
        if e.payload is not None:
            with pytest.raises(DriveFormatError):
                codec.decode(e.topic, e.payload, e.sequence)
        assert (e.payload is not None) == ((e.capture_ns - START_NS) < 300_000_000)


def test_truth_names_the_faults_that_are_active() -> None:
    truth = [e.message for e in of(drive("camera:drop@0.2-0.4", "imu:delay@0.3-0.5"), topics.TRUTH)]
    assert [list(t.faults) for t in truth[3:10]] == [
        [], ["camera:drop"], ["camera:drop"], ["camera:drop", "imu:delay"], ["camera:drop", "imu:delay"],
        ["imu:delay"], ["imu:delay"],
    ]  # fmt: skip


def test_option_text_is_read() -> None:
    assert parse_fault("camera:drop@1.5-3=0.25") == Fault("camera", "drop", 1.5, 3.0, 0.25)
    assert parse_fault("imu:clock_step=-2").value == -2.0
    assert parse_fault("lidar:delay").value == 0.25


@pytest.mark.parametrize(
    "text", ["", "camera", "radar:drop", "camera:melt", "camera:drop@5-2", "camera:drop=2", "camera:stall",
             "imu:delay=-1", "camera:drop@1..2-3", "camera:drop@1-2=x", "imu:clock_step=1e9", "imu:clock_step=5000"],
)  # fmt: skip
def test_wrong_option_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_fault(text)
    assert "\n" not in str(refused.value) and "expected" in str(refused.value)
