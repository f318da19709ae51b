"""MF4 logs: raw frames, and what a DBC makes of them."""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections.abc import Callable
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import asammdf
import numpy as np
import pytest
from asammdf.blocks.source_utils import Source

from edge.drive import topics
from edge.errors import SourceError
from edge.importers import dbc, mdf_blocks, mf4
from edge.importers.command import import_recording
from edge.importers.recording import Skipped

CANEDGE = "drives/canedge"
DBC = """VERSION ""
BO_ 7 gnss_speed: 5 X
 SG_ Speed : 1|20@1+ (0.001,0) [0|0] "m/s" X
 SG_ SpeedValid : 0|1@1+ (1,0) [0|1] "" X
BO_ 2566844926 CCVS1: 8 X
 SG_ WheelBasedVehicleSpeed : 8|16@1+ (0.00390625,0) [0|250.996] "km/h" X
BA_DEF_ BO_  "VFrameFormat" ENUM  "StandardCAN","ExtendedCAN","reserved","J1939PG";
BA_DEF_  "ProtocolType" STRING ;
BA_DEF_DEF_  "VFrameFormat" "J1939PG";
BA_DEF_DEF_  "ProtocolType" "";
BA_ "ProtocolType" "J1939";
BA_ "VFrameFormat" BO_ 2566844926 3;
"""
FRAME = np.dtype(
    [
        ("CAN_DataFrame.BusChannel", "u1"),
        ("CAN_DataFrame.ID", "<u4"),
        ("CAN_DataFrame.IDE", "u1"),
        ("CAN_DataFrame.DataLength", "u1"),
        ("CAN_DataFrame.DataBytes", "(8,)u1"),
    ]
)


def write_log(path: Path, frames: list[tuple[int, int, int, bytes]]) -> None:
    """A finished log: bus, id, is_extended and payload every 10 ms from 2020-01-01 on."""
    table = np.zeros(len(frames), FRAME)
    for row, (bus, can_id, extended, payload) in zip(table, frames):
        row[0], row[1], row[2], row[3] = bus, can_id, extended, len(payload)
        row[4][: len(payload)] = list(payload)
    source = Source("", "", "", Source.SOURCE_BUS, Source.BUS_TYPE_CAN)
    with asammdf.MDF(version="4.11") as log:
        log.start_time = datetime(2020, 1, 1, tzinfo=timezone.utc)
        log.append(asammdf.Signal(table, np.arange(len(frames)) * 0.01, name="CAN_DataFrame", source=source))
        log.append(asammdf.Signal(np.arange(3.0), np.arange(3.0), name="Temperature"), acq_name="Thermometer")
        log.save(path.with_suffix(".mf4"), overwrite=True).rename(path)  # the name says nothing


def speed(kmh: float) -> bytes:
    return b"\0" + round(kmh * 256).to_bytes(2, "little") + bytes(5)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    frames = [(1, 0x18FEF147, 1, speed(36)), (2, 7, 0, b"\x01\0\0\0\0"), (1, 0x123, 0, b"abc")] * 50
    write_log(tmp_path / "log", frames)
    (tmp_path / "truck.dbc").write_text(DBC)
    return tmp_path / "log"


def test_the_long_trip_is_complete(recordings: Path, importing: Callable[..., Any]) -> None:
    folder = recordings / CANEDGE
    found = importing(folder / "3BA199E2_00000164/00000002-60FE415D.MF4", folder / "dbc/gnss.dbc")
    assert len(found.streams[topics.CAN]) == 73_785
    assert len(found.streams[topics.GNSS]) == 571
    # 60,750 IMU frames, of which one says itself that it is not valid.
    assert len(found.streams[topics.IMU]) == 60_749
    assert {"name": "CAN gnss_imu", "reason": "1 messages: ImuValid is 0"} in found.summary.skipped
    assert 56.01 < found.streams[topics.GNSS][0].content.latitude_deg < 56.11
    speeds = [message.content.speed_mps for message in found.streams[topics.VEHICLE]]
    assert len(speeds) == 571 and min(speeds) > 4.9 and max(speeds) < 24.2
    metres = [0.0]
    fixes = [message.content for message in found.streams[topics.GNSS]]
    for a, b in pairwise(fixes):
        north = math.radians(b.latitude_deg - a.latitude_deg) * 6_371_000
        east = math.radians(b.longitude_deg - a.longitude_deg) * 6_371_000 * math.cos(math.radians(a.latitude_deg))
        metres.append(math.hypot(north, east))
    assert sum(metres) == pytest.approx(sum(speeds) * 600 / 571, rel=0.03)  # the way is the speed times the time
    assert found.streams[topics.CAN][0].capture_ns // 1_000_000_000 == 1_627_274_454 + 545


def test_constant_columns_in_conversions_are_read(recordings: Path, importing: Callable[..., Any]) -> None:
    folder = recordings / CANEDGE
    found = importing(folder / "2F6913DB_00001089/00000001-63BEF5CD.MF4", folder / "dbc/gnss.dbc")
    frames = [message.content for message in found.streams[topics.CAN]]
    assert len(frames) == 764 + 247 + 3013
    assert {(frame.bus, frame.is_extended) for frame in frames} == {(1, False), (2, False)}


def test_a_log_of_our_own(small: Path, importing: Callable[..., Any]) -> None:
    found = importing(small, small.parent / "truck.dbc")
    assert found.summary.format == "mf4"
    assert found.summary.streams == {topics.CAN: 150, topics.VEHICLE: 50}
    first = found.streams[topics.VEHICLE][0]
    assert first.content.speed_mps == pytest.approx(10)  # CCVS1 by its parameter group, from another sender
    assert first.capture_ns == 1_577_836_800_000_000_000
    assert found.streams[topics.CAN][2].content.payload == b"abc"
    assert [entry["name"] for entry in found.summary.skipped] == ["MF4 Thermometer"]


def test_a_log_without_can_frames_is_refused(tmp_path: Path) -> None:
    with asammdf.MDF(version="4.11") as log:
        log.append(asammdf.Signal(np.arange(3.0), np.arange(3.0), name="Temperature"))
        log.save(tmp_path / "log.mf4", overwrite=True)
    with pytest.raises(SourceError, match="expected CAN frames"):
        import_recording(tmp_path / "log.mf4", tmp_path / "out.mcap")


def test_a_unit_that_is_unknown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.dbc").write_text(DBC.replace('"km/h"', '"furlong"'))
    key = (1, 0x18FEF147, True)
    decoder = dbc.Decoder(dbc.load([tmp_path / "odd.dbc"]), [key], Skipped())
    with pytest.raises(SourceError, match="WheelBasedVehicleSpeed: expected a unit"):
        list(decoder.feed(0, key, speed(36)))


def test_frames_shorter_than_the_dbc_says_are_counted(tmp_path: Path) -> None:
    (tmp_path / "truck.dbc").write_text(DBC)
    key, skipped = (1, 0x18FEF147, True), Skipped()
    decoder = dbc.Decoder(dbc.load([tmp_path / "truck.dbc"]), [key], skipped)
    assert [event.topic for event in decoder.feed(0, key, b"abc")] == [topics.CAN]
    assert skipped.entries() == [{"name": "CAN CCVS1", "reason": "1 messages: shorter than the 8 bytes of the DBC"}]


def test_a_multiplexed_frame_that_the_dbc_does_not_know_is_counted(tmp_path: Path) -> None:
    signals = 'SG_ MODE M : 0|8@1+ (1,0) [0|0] "" X', 'SG_ OTHER m0 : 8|16@1+ (1,0) [0|0] "" X'
    speed = 'SG_ SPEED m1 : 8|16@1+ (0.01,0) [0|0] "m/s" X'
    (tmp_path / "car.dbc").write_text("\n ".join(['VERSION ""\nBO_ 180 SPEED: 8 X', *signals, speed, "\n"]))
    key, skipped = (0, 180, False), Skipped()
    decoder = dbc.Decoder(dbc.load([tmp_path / "car.dbc"]), [key], skipped)
    told = {mode: [event.topic for event in decoder.feed(0, key, bytes([mode, 100]) + bytes(6))] for mode in (1, 0, 7)}
    assert told == {1: [topics.CAN, topics.VEHICLE], 0: [topics.CAN], 7: [topics.CAN]}
    reason = "1 messages: its multiplexer has a value that the DBC lacks"
    assert skipped.entries() == [{"name": "CAN SPEED", "reason": reason}]


@pytest.mark.parametrize("keep", [8, 63, 64, 200, 1000, 3000])
def test_a_log_that_was_cut_off_is_refused(
    small: Path, tmp_path: Path, keep: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut").write_bytes(small.read_bytes()[:keep])
    with pytest.raises(SourceError, match="expected") as caught:
        import_recording(tmp_path / "cut", tmp_path / "out.mcap")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))
    assert capfd.readouterr() == ("", "")  # the library's own tracebacks stay inside


def test_sizes_that_no_file_could_hold_are_refused(small: Path, tmp_path: Path) -> None:
    content = bytearray(small.read_bytes())
    group_at = content.index(b"##CG")
    (links,) = struct.unpack_from("<Q", content, group_at + 16)
    for offset in (8, 24, 28):  # cycles, data bytes, invalidation bytes
        broken = bytearray(content)
        broken[group_at + 24 + 8 * links + offset + 3] = 0x7F
        (tmp_path / "huge").write_bytes(broken)
        with pytest.raises(SourceError, match="expected a channel group that fits"):
            import_recording(tmp_path / "huge", tmp_path / "out.mcap")


def test_a_list_of_blocks_without_end_is_refused(small: Path, tmp_path: Path) -> None:
    content = bytearray(small.read_bytes())
    first_at = content.index(b"##DG")
    struct.pack_into("<Q", content, first_at + 24, first_at)  # its next is itself
    (tmp_path / "endless").write_bytes(content)
    with pytest.raises(SourceError, match="blocks that ends"):
        import_recording(tmp_path / "endless", tmp_path / "out.mcap")


def test_channel_groups_of_two_data_groups_are_refused(small: Path, tmp_path: Path) -> None:
    content = bytearray(small.read_bytes())
    first_at = content.index(b"##DG")
    second_at, groups_at = struct.unpack_from("<QQ", content, first_at + 24)
    struct.pack_into("<Q", content, second_at + 32, groups_at)  # walked once a data group, that could take hours
    (tmp_path / "shared").write_bytes(content)
    with pytest.raises(SourceError, match="shares none with another list"):
        mdf_blocks.check(tmp_path / "shared")


def test_a_reader_that_crashes_gives_one_error(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # asammdf's native code can die of damaged bytes; a module that raises its own SIGSEGV stands for it.
    (tmp_path / "crashing_reader.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mf4, "READER", "crashing_reader")
    with pytest.raises(SourceError, match=r"got: a crash of its reader \(SIGSEGV\)"):
        import_recording(small, tmp_path / "out.mcap")


def test_a_reader_that_never_ends_gives_one_error(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_reader.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(mf4, "READER", "endless_reader")
    monkeypatch.setattr(mf4, "PATIENCE_S", 0.5)
    with pytest.raises(SourceError, match="got: no end of its reading"):
        import_recording(small, tmp_path / "out.mcap")


def test_damaged_links_and_bits_give_a_check_or_one_error(small: Path, tmp_path: Path) -> None:
    whole, chance = small.read_bytes(), random.Random(2)
    for _ in range(1000):
        content = bytearray(whole)
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped").write_bytes(content)
        with contextlib.suppress(SourceError):
            mdf_blocks.check(tmp_path / "flipped")
    # The whole way takes a process: one sample, whose frames' own block is cut short.
    content = bytearray(whole)
    struct.pack_into("<Q", content, content.index(b"##DT") + 8, 1000)
    (tmp_path / "flipped").write_bytes(content)
    try:
        import_recording(tmp_path / "flipped", tmp_path / "out.mcap")
    except SourceError as error:
        assert "\n" not in str(error)
