"""GoPro files: all streams on one clock, with the counts that the file itself states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import gopro, gpmf_tracks, media
from edge.importers.command import import_recording
from edge.samples import AudioChunk, GnssFix, ImuSample

SECOND_NS = 1_000_000_000


def test_every_stream_is_complete(gopro_walk: Any) -> None:
    streams = gopro_walk.streams
    assert gopro_walk.summary.format == "gopro"
    assert len(streams[topics.CAMERA]) == 315
    assert len(streams[topics.IMU]) == 2082
    assert len(streams[topics.GNSS]) == 191
    samples = sum(len(chunk.content.pcm) for chunk in streams[topics.AUDIO])
    assert samples == 493 * 1024  # AAC frames of 1,024 samples
    for messages in streams.values():
        assert [message.sequence for message in messages] == list(range(len(messages)))


def test_all_streams_share_the_media_clock(gopro_walk: Any) -> None:
    starts = {topic: messages[0].capture_ns for topic, messages in gopro_walk.streams.items()}
    ends = {topic: messages[-1].capture_ns for topic, messages in gopro_walk.streams.items()}
    assert starts[topics.CAMERA] == starts[topics.AUDIO] == media.ORIGIN_NS
    # By the camera's own microseconds the accelerometer begins 5.031 ms before the first picture, GNSS 16.386 ms after.
    assert starts[topics.IMU] - media.ORIGIN_NS == -5_031_000
    assert starts[topics.GNSS] - media.ORIGIN_NS == 16_386_000
    assert all(abs(end - ends[topics.CAMERA]) < 60_000_000 for end in ends.values())
    imu_gaps = np.diff([message.capture_ns for message in gopro_walk.streams[topics.IMU]])
    assert imu_gaps.min() > 5_000_000 and imu_gaps.max() < 5_200_000


def test_the_accelerometer_feels_gravity_where_the_camera_says(gopro_walk: Any, recordings: Path) -> None:
    source = recordings / "drives/gopro-max-walk/max-heromode.mp4"
    index = gopro.telemetry_track(source)
    assert index is not None
    with media.opened(source) as container:
        gravity = gpmf_tracks.tracks(list(gopro._payloads(container, index)))[b"GRAV"]
    right, down, ahead = gravity.values.mean(axis=0)  # in picture axes, length 1
    accel = np.mean([message.content.accel_mps2 for message in gopro_walk.streams[topics.IMU]], axis=0)
    expected = 9.81 * np.array([-ahead, right, down])  # specific force: against gravity; left = -right
    assert np.abs(accel - expected).max() < 0.2


def test_sound_arrives_at_the_end_of_its_block(gopro_walk: Any) -> None:
    for message in gopro_walk.streams[topics.AUDIO]:
        chunk = message.content
        assert isinstance(chunk, AudioChunk)
        assert message.arrival_ns == message.capture_ns + len(chunk.pcm) * SECOND_NS // 48_000


def test_what_has_no_topic_is_named(gopro_walk: Any) -> None:
    names = " ".join(entry["name"] for entry in gopro_walk.summary.skipped)
    for name in ("GPMF MAGN", "GPMF SCEN", "GPMF CORI", "track 2", "track 4"):
        assert name in names


def test_a_file_of_our_own_gives_all_streams(make: Any, importing: Callable[..., Any], tmp_path: Path) -> None:
    def second(number: int) -> bytes:
        at_us = 5_000_000 + number * 1_000_000
        orientation = make.klv(b"ORIN", "c", 1, b"ZXY")
        return make.device(
            make.sensor(b"ACCL", [(98, 0, 10 * number)] * 10, 10, orientation, stamp_us=at_us),
            make.sensor(b"GYRO", [(0, 5, 0)] * 20, 100, orientation, stamp_us=at_us),
            make.sensor(b"SHUT", [(1,)] * 10, 1, stamp_us=at_us),
            make.positions([(50.0, 8.0, 100.0)] * 2, fix=3 * number, stamp_us=at_us),
        )

    source = tmp_path / "film.bin"  # the name says nothing
    make.mp4(source, pictures=20, payloads=(second(0), second(1)), container="mp4")
    found = importing(source)
    assert found.summary.format == "gopro"
    assert found.summary.streams == {topics.CAMERA: 20, topics.AUDIO: 100, topics.IMU: 20, topics.GNSS: 2}
    sample = found.streams[topics.IMU][-1].content
    assert isinstance(sample, ImuSample)
    assert sample.accel_mps2 == pytest.approx((-1.0, 0.0, 9.8))
    assert sample.gyro_radps == pytest.approx((0.0, 0.05, 0.0))
    fix = found.streams[topics.GNSS][0].content
    assert isinstance(fix, GnssFix)
    assert (fix.latitude_deg, fix.longitude_deg, fix.altitude_m) == pytest.approx((50, 8, 100))
    assert {"name": "GPMF GPS5", "reason": "2 messages: position without a lock"} in found.summary.skipped
    assert [entry["name"] for entry in found.summary.skipped if "SHUT" in entry["name"]]


def test_a_lone_accelerometer_is_named(make: Any, importing: Callable[..., Any], tmp_path: Path) -> None:
    make.mp4(tmp_path / "a.mp4", payloads=(make.device(make.sensor(b"ACCL", [(1, 2, 3)], 1)),))
    found = importing(tmp_path / "a.mp4")
    assert topics.IMU not in found.streams
    assert {"name": "GPMF ACCL (ACCL)", "reason": "no gyro comes with it"} in found.summary.skipped


@pytest.mark.parametrize("empty", [b"ACCL", b"GYRO"])
def test_a_track_without_samples_is_as_none(
    make: Any, importing: Callable[..., Any], tmp_path: Path, empty: bytes
) -> None:
    full = make.sensor(b"GYRO" if empty == b"ACCL" else b"ACCL", [(1, 2, 3)], 1)
    make.mp4(tmp_path / "a.mp4", payloads=(make.device(full, make.nest(b"STRM", make.klv(empty, "s", 6, b""))),))
    found = importing(tmp_path / "a.mp4")
    assert topics.IMU not in found.streams
    name = empty.decode()
    assert {"name": f"GPMF {name} ({name})", "reason": "it is empty"} in found.summary.skipped


def test_a_file_that_was_cut_off_is_refused(recordings: Path, tmp_path: Path) -> None:
    content = (recordings / "drives/gopro-max-walk/max-heromode.mp4").read_bytes()
    for keep in (20, 1000, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.mp4").write_bytes(content[:keep])
        with pytest.raises(SourceError, match="expected") as caught:
            import_recording(tmp_path / "cut.mp4", tmp_path / "out.mcap")
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mp4"]


def test_damaged_telemetry_is_refused(make: Any, tmp_path: Path) -> None:
    make.mp4(tmp_path / "a.mp4", payloads=(make.device(make.sensor(b"ACCL", [(1, 2, 3)], 1))[:-6],))
    with pytest.raises(SourceError, match=r"a\.mp4: GPMF: expected 48 bytes"):
        import_recording(tmp_path / "a.mp4", tmp_path / "out.mcap")
    assert not (tmp_path / "out.mcap").exists()
