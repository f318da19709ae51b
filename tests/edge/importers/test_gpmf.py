"""GPMF bytes to values, axes and instants; damaged bytes give one error and nothing else."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SourceError
from edge.importers import gopro, gpmf, gpmf_tracks
from edge.importers.recording import Recording, Skipped

SECOND_NS = 1_000_000_000


def payload(content: bytes, second: int = 0) -> gpmf_tracks.Payload:
    return gpmf_tracks.Payload(second * SECOND_NS, SECOND_NS, gpmf.parse(content))


def test_values_are_divided_by_the_scale(make: Any) -> None:
    (stream,) = gpmf.parse(make.device(make.sensor(b"ACCL", [(10, -20, 30), (1, 2, 3)], 10)))
    assert (stream.key, stream.device) == (b"ACCL", b"Test")
    assert stream.values.tolist() == [[1, -2, 3], [0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    ("name", "orientation", "forward_left_up"),
    [
        (b"GoPro Max", "XzY", (-3, 1, -2)),  # raw channels: +X, -Z, +Y
        (b"HERO9 Black", "ZXY", (-3, 2, 1)),
        (b"Hero5 Black", "", (-3, 2, 1)),  # older files say nothing: Z, X, Y
        (b"HERO6 Black", "", (-1, -2, 3)),  # Y, -X, Z
        (b"Fusion", "", (1, 2, 3)),  # -Y, X, Z
    ],
)
def test_axes_become_forward_left_up(
    make: Any, name: bytes, orientation: str, forward_left_up: tuple[int, ...]
) -> None:
    facts = [make.klv(b"ORIN", "c", 1, orientation.encode())] if orientation else []
    tracks = gpmf_tracks.tracks([payload(make.device(make.sensor(b"ACCL", [(1, 2, 3)], 1, *facts), name=name))])
    assert gpmf_tracks.forward_left_up(tracks[b"ACCL"]).tolist() == [list(forward_left_up)]


def test_an_orientation_that_names_no_three_axes_is_refused(make: Any) -> None:
    facts = make.klv(b"ORIN", "c", 1, b"XXY")
    tracks = gpmf_tracks.tracks([payload(make.device(make.sensor(b"ACCL", [(1, 2, 3)], 1, facts)))])
    with pytest.raises(SourceError, match="axes X, Y and Z"):
        gpmf_tracks.forward_left_up(tracks[b"ACCL"])


def test_microsecond_stamps_count_from_the_first_picture(make: Any) -> None:
    def second(accel_us: int, shutter_us: int) -> bytes:
        rows = [(number, 0, 0) for number in range(4)]
        return make.device(
            make.sensor(b"ACCL", rows, 1, stamp_us=accel_us), make.sensor(b"SHUT", [(1,)], 1, stamp_us=shutter_us)
        )

    tracks = gpmf_tracks.tracks([payload(second(95_000, 100_000)), payload(second(1_095_000, 1_100_000), 1)])
    assert (tracks[b"ACCL"].stamps_ns // 1_000_000).tolist() == [-5, 245, 495, 745, 995, 1245, 1495, 1745]


def test_a_lost_payload_does_not_stretch_the_one_before(make: Any) -> None:
    def second(stamp_us: int) -> bytes:
        rows = [(number, 0, 0) for number in range(4)]
        return make.device(
            make.sensor(b"ACCL", rows, 1, stamp_us=stamp_us), make.sensor(b"SHUT", [(1,)], 1, stamp_us=stamp_us)
        )

    stamps = gpmf_tracks.tracks([payload(second(s * 1_000_000), s) for s in (0, 1, 3, 4)])[b"ACCL"].stamps_ns
    assert np.diff(stamps).max() == 1_250_000_000  # the hole, and no sample in it


def test_without_microsecond_stamps_values_spread_over_their_payload(make: Any) -> None:
    content = make.device(make.sensor(b"ACCL", [(0, 0, 0)] * 4, 1))
    stamps = gpmf_tracks.tracks([payload(content), payload(content, 1)])[b"ACCL"].stamps_ns
    assert (stamps // 1_000_000).tolist() == [0, 250, 500, 750, 1000, 1250, 1500, 1750]


def test_structures_of_several_types_are_read(make: Any) -> None:
    types = make.klv(b"TYPE", "c", 1, b"lS")
    row = make.klv(b"GPS9", "?", 6, struct.pack(">lH", -7, 3))
    (stream,) = gpmf.parse(make.device(make.nest(b"STRM", types, row)))
    assert stream.values.tolist() == [[-7, 3]]


def test_text_streams_are_kept_without_channels(make: Any) -> None:
    (stream,) = gpmf.parse(make.device(make.nest(b"STRM", make.klv(b"SCEN", "F", 4, b"SNOW"))))
    assert stream.values.shape == (1, 0)


def test_values_of_no_bytes_are_none_however_many_there_are_said_to_be(make: Any) -> None:
    nothing = struct.pack(">4scBH", b"SCEN", b"F", 0, 65535)
    (stream,) = gpmf.parse(make.device(make.nest(b"STRM", nothing)))
    assert len(stream.values) == 0


@pytest.mark.parametrize("cut", [5, 20, 40])
def test_a_record_beyond_its_parent_is_refused(make: Any, cut: int) -> None:
    content = make.device(make.sensor(b"ACCL", [(1, 2, 3)] * 10, 1))
    with pytest.raises(SourceError, match="expected"):
        gpmf.parse(content[:-cut])


def test_a_scale_of_zero_is_refused(make: Any) -> None:
    with pytest.raises(SourceError, match="scales other than 0"):
        gpmf.parse(make.device(make.sensor(b"ACCL", [(1, 2, 3)], 0)))


def test_endless_nesting_is_refused(make: Any) -> None:
    content = b""
    for _ in range(gpmf.MAX_DEPTH + 2):
        content = make.nest(b"DEVC", content)
    with pytest.raises(SourceError, match="nested"):
        gpmf.parse(content)


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_bytes_give_tracks_or_one_error(make: Any, data: st.DataObject) -> None:
    whole = make.device(
        make.sensor(b"ACCL", [(1, 2, 3)] * 5, 417, make.klv(b"ORIN", "c", 1, b"XzY"), stamp_us=80_577),
        make.sensor(b"GYRO", [(1, 2, 3)] * 7, 939, stamp_us=80_577),
        make.sensor(b"SHUT", [(1,)], 1, stamp_us=85_608),
        make.positions([(33.1, -117.3, 9.0)] * 3, fix=3, stamp_us=101_994),
        make.nest(b"STRM", make.klv(b"TYPE", "c", 1, b"lllllllSS"), make.klv(b"GPS9", "?", 32, b"\1" * 64)),
    )
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        tracks = gpmf_tracks.tracks([payload(bytes(content)), payload(whole, 1)])
        recording = Recording("gopro", [], Skipped())
        gopro._add_sensors(recording, tracks)
        for stream in recording.streams:
            assert all(isinstance(event.capture_ns, int) for event in stream)
    except SourceError as error:
        assert "\n" not in str(error)
