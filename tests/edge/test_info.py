"""`roadfuse info`: the figures of a drive whose figures are known, and damage."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.command import main as roadfuse
from edge.drive import topics
from edge.drive.writer import DriveWriter
from edge.errors import DriveFormatError
from edge.info import inspect, table
from edge.samples import AudioChunk, CanFrame, ImuSample

MS = 1_000_000
START_NS = 5_000 * MS


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """/imu at 100 Hz, 2 ms late, without number 50 and with number 60 twice; /audio 12 ms late; one /can frame."""
    path = tmp_path / "drive.mcap"
    messages: list[tuple[int, str, Any]] = [(START_NS, topics.CAN, CanFrame(START_NS, 0, 1, 0x123, b"abc"))]
    for number in range(100):
        at_ns = START_NS + number * 10 * MS
        if number != 50:
            messages.append((at_ns + 2 * MS, topics.IMU, ImuSample(at_ns, number, (0, 0, 9.81), (0, 0, 0))))
        if number == 60:
            messages.append((at_ns + 3 * MS, topics.IMU, ImuSample(at_ns, number, (0, 0, 9.81), (0, 0, 0))))
    for number in range(50):
        at_ns = START_NS + number * 20 * MS
        messages.append((at_ns + 12 * MS, topics.AUDIO, AudioChunk(at_ns, number, 16_000, np.zeros(320, np.int16))))
    messages.sort(key=lambda message: message[0])
    with DriveWriter(path, metadata={"source": "made up"}) as writer:
        for arrival_ns, topic, sample in messages:
            writer.write(topic, sample, arrival_ns=arrival_ns)
        writer.add_metadata("roadfuse.import", {"skipped": json.dumps([{"name": "radar", "reason": "no topic"}])})
    return path


def test_rates_gaps_losses_and_delays(drive: Path) -> None:
    found = inspect(drive)
    streams = {stream.topic: stream for stream in found.streams}
    imu, audio, can = streams[topics.IMU], streams[topics.AUDIO], streams[topics.CAN]
    assert (imu.messages, imu.missing, imu.duplicates, imu.largest_gap_ms) == (100, 1, 1, 20.0)
    assert imu.rate_hz == pytest.approx(100)
    assert (imu.delay_p50_ms, imu.clock_offset_ms) == (2.0, 2.0)  # the /can frame arrived at once
    assert imu.delay_p99_ms == pytest.approx(2.01)
    assert (imu.first_s, imu.last_s) == (5.0, 5.99)
    assert (audio.messages, audio.rate_hz, audio.clock_offset_ms) == (50, 50.0, 12.0)
    assert (can.messages, can.rate_hz, can.largest_gap_ms) == (1, None, None)
    assert (imu.schema, audio.schema) == ("roadfuse.v1.Imu", "foxglove.RawAudio")
    assert found.duration_s == pytest.approx(0.992)
    assert (found.complete, found.compression, found.damage) == (True, "zstd", [])
    assert found.size_bytes == drive.stat().st_size


def test_the_table_is_for_people(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["info", str(drive)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "closed cleanly" in lines[0] and "zstd" in lines[0]
    assert "  roadfuse.drive: source = made up" in lines
    assert "  skipped radar: no topic" in lines
    imu = next(line.split() for line in lines if line.startswith(topics.IMU))
    assert imu[:6] == ["/imu", "roadfuse.v1.Imu", "100", "100.00", "20.0", "1"]


def test_json_holds_the_same(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["info", str(drive), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {stream["topic"]: stream["messages"] for stream in found["streams"]} == {
        topics.AUDIO: 50,
        topics.CAN: 1,
        topics.IMU: 100,
    }
    assert found["metadata"]["roadfuse.drive"]["source"] == "made up"


def test_a_drive_that_was_never_closed_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), DriveWriter(tmp_path / "a.mcap") as writer:
        writer.write(topics.CAN, CanFrame(START_NS, 0, 1, 0x123, b"abc"), arrival_ns=START_NS)
        writer.flush()
        raise KeyboardInterrupt
    found = inspect(tmp_path / "a.mcap")
    assert not found.complete
    assert [stream.messages for stream in found.streams] == [1]
    assert "never closed" in table(found)


def test_damage_is_named_with_its_offset(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(drive.read_bytes())
    at = content.index(b"zstd") + 30  # inside the first chunk
    content[at : at + 8] = bytes(8)
    drive.write_bytes(content)
    assert roadfuse(["info", str(drive), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["damage"][0]["offset"] < at
    assert sum(stream["messages"] for stream in found["streams"]) < 151
    assert roadfuse(["info", str(drive)]) == 1
    assert f"damaged at byte {found['damage'][0]['offset']}: " in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a drive", b"RIFF" + bytes(100)])
def test_what_is_no_drive_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert roadfuse(["info", str(tmp_path / "a")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert roadfuse(["info", str(tmp_path / "absent")]) == 2


def test_numbers_of_a_writer_that_does_not_count_are_no_losses(recordings: Path) -> None:
    found = inspect(recordings / "formats/mcap-ros2/talker/talker.mcap")
    assert sum(stream.messages for stream in found.streams) == 20
    assert all(not stream.missing for stream in found.streams)


def test_cut_and_flipped_drives_give_figures_or_one_error(drive: Path, tmp_path: Path) -> None:
    whole, chance = drive.read_bytes(), np.random.default_rng(5)
    for _ in range(150):
        content = bytearray(whole[: chance.integers(0, len(whole) + 1)])
        for at in chance.integers(0, max(len(content), 1), 3):
            content[at : at + 1] = struct.pack("B", chance.integers(256))
        (tmp_path / "broken").write_bytes(content)
        try:
            table(inspect(tmp_path / "broken"))
        except DriveFormatError as error:
            assert "\n" not in str(error)
