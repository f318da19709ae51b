"""A simulated drive: reproducible, ordered, complete."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from edge.alignment.projection import Rig, project
from edge.drive import codec, topics
from edge.errors import ConfigError
from edge.samples import AudioChunk, Frame, Sweep
from export.world.delivery import WorldEvent
from export.world.simulate import START_NS, WorldConfig, simulate

DIGEST = """
import hashlib
from edge.drive import codec
from export.world.faults import parse_fault
from export.world.simulate import WorldConfig, simulate
faults = tuple(parse_fault(t) for t in ("camera:corrupt@0.2-0.5=0.5", "imu:duplicate=0.3", "lidar:delay=0.1"))
digest = hashlib.sha256()
for e in simulate(WorldConfig(11, 1.2, "siren", "rain", "night", faults)):
    digest.update(f"{e.arrival_ns} {e.topic} {e.capture_ns} {e.sequence}".encode())
    body = e.payload or (codec.encode(e.sample) if e.sample else e.message).SerializeToString(deterministic=True)
    digest.update(body)
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def events() -> list[WorldEvent]:
    return list(simulate(WorldConfig(4, 2.0, "urban")))


def test_same_seed_gives_the_same_bytes_under_any_hash_seed() -> None:
    digests = set()
    for hash_seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_another_seed_gives_another_drive() -> None:
    def first_picture(seed: int) -> bytes:
        events = simulate(WorldConfig(seed, 0.1, lidar=False))
        return next(e.sample.jpeg for e in events if isinstance(e.sample, Frame))

    assert first_picture(1) != first_picture(2)


def test_events_arrive_in_order_and_after_their_capture(events: list[WorldEvent]) -> None:
    for earlier, later in itertools.pairwise(events):
        assert earlier.arrival_ns <= later.arrival_ns
    assert all(e.arrival_ns >= e.capture_ns >= START_NS for e in events)


def test_every_stream_has_its_rate_and_counts_from_zero(events: list[WorldEvent]) -> None:
    rates = {topics.CAMERA: 20, topics.AUDIO: 50, topics.IMU: 100, topics.GNSS: 10, topics.CAN: 100,
             topics.VEHICLE: 50, topics.LIDAR: 10, topics.TRUTH: 20}  # fmt: skip
    counts = Counter(e.topic for e in events)
    for topic, rate in rates.items():
        assert counts[topic] == 2 * rate, topic
        assert sorted(e.sequence for e in events if e.topic == topic) == list(range(2 * rate))
    assert counts[topics.CALIBRATION] == 1 and counts[topics.TRANSFORM] == 2


def test_each_event_carries_exactly_one_thing(events: list[WorldEvent]) -> None:
    for e in events:
        assert sum(x is not None for x in (e.sample, e.message, e.payload)) == 1
        if e.sample is not None:
            assert (e.sample.stamp_ns, e.sample.seq) == (e.capture_ns, e.sequence)


def test_sound_is_gapless_and_neither_silent_nor_clipped(events: list[WorldEvent]) -> None:
    chunks = [e.sample for e in events if isinstance(e.sample, AudioChunk)]
    assert all(len(c.pcm) == 320 and c.stamp_ns == START_NS + 20_000_000 * c.seq for c in chunks)
    peak = max(int(abs(c.pcm.astype(int)).max()) for c in chunks)
    assert 300 < peak < 32_767


def test_pictures_come_with_or_without_jpeg(events: list[WorldEvent]) -> None:
    frame = next(e.sample for e in events if isinstance(e.sample, Frame))
    assert frame.image is not None and frame.image.shape == (384, 640, 3)
    assert abs(codec.decode_jpeg(frame.jpeg).astype(int) - frame.image).mean() < 6.0
    bare = next(e.sample for e in simulate(WorldConfig(4, 0.1, "urban"), encode=False) if isinstance(e.sample, Frame))
    assert bare.jpeg == b"" and bare.image is not None and (bare.image == frame.image).all()


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0.0}, {"seed": -1}, {"fps": 0}, {"width_px": 8}, {"scenario": "moon"}, {"weather": "hail"},
              {"town": 250}, {"light": "noon"}, {"lidar_columns": 89}, {"lidar_columns": 2049}, {"lidar_rings": 7}],
)  # fmt: skip
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        next(simulate(WorldConfig(**{"seed": 1, "seconds": 1.0, **wrong})))  # type: ignore[arg-type]


def test_another_lidar_changes_no_other_stream_and_sees_what_is_drawn() -> None:
    plain, fine = (
        list(simulate(WorldConfig(12, 0.3, "urban", "clear", "day", **rays), encode=False))
        for rays in ({}, {"lidar_columns": 1024, "lidar_rings": 64})
    )
    for one, other in zip(plain, fine, strict=True):
        assert (one.topic, one.arrival_ns, one.capture_ns) == (other.topic, other.arrival_ns, other.capture_ns)
        if one.topic == topics.CAMERA:
            assert isinstance(one.sample, Frame) and isinstance(other.sample, Frame)
            assert np.array_equal(one.sample.image, other.sample.image)
        elif one.topic not in (topics.LIDAR, topics.CALIBRATION):
            assert one.payload == other.payload and one.message == other.message
    few, many = (next(e.sample.points_lidar for e in events if isinstance(e.sample, Sweep)) for events in (plain, fine))
    assert len(many) > 4 * len(few)
    transforms = [e.message for e in fine if e.topic == topics.TRANSFORM]
    rig = Rig.from_messages(next(e.message for e in fine if e.topic == topics.CALIBRATION), transforms)
    assert (rig.cx_px, rig.cy_px) == (319.5, 191.5)  # the middle of a picture whose first pixel's centre is 0
    assert project(rig, many).is_seen.sum() > 4000
