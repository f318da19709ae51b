"""GoPro's telemetry format (GPMF): key-length-value bytes into scaled, axis-mapped, timed streams.

In: the payloads of an MP4's metadata track with their instants. Out: for each sensor key the values in SI units and one
instant per value, on the media clock (ns, 0 = first picture).

Axes: ORIN names the raw channels (capital = positive); GoPro's labels are X left, Y back, Z up as seen from behind the
camera, so forward = -Y, left = X, up = Z.

Time: STMP counts camera microseconds, and streams that follow the pictures (SHUT, ISOE, CORI) carry it too, so that
STMP minus the pictures' first STMP is media time. Files without STMP spread each payload's values over its duration.

Ref: https://github.com/gopro/gpmf-parser (README, "GPMF Deeper Dive" and "IMU Orientation").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError

MAX_DEPTH: Final = 8  # DEVC > STRM is 2; more than this is damage
MAX_STAMP_US: Final = 1 << 46  # two years of camera microseconds
# Keys inside a stream that describe its values and are none themselves.
_DESCRIPTIONS: Final = frozenset(
    b"STMP TSMP STNM SIUN UNIT SCAL TYPE MTRX ORIN ORIO TMPC GPSF GPSU GPSP GPSA TICK TOCK TIMO EMPT RMRK VPTS".split()
)
PICTURE_PACED: Final = (b"SHUT", b"ISOE", b"ISOG", b"CORI")
_DTYPES: Final = {
    "b": ">i1", "B": ">u1", "s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "f": ">f4", "d": ">f8", "j": ">i8",
    "J": ">u8", "q": ">i4", "Q": ">i8",
}  # fmt: skip
# Channel order by camera, where the file has no ORIN.
_ORIENTATIONS: Final = {b"Hero5": "ZXY", b"HERO5": "ZXY", b"Fusion": "yXZ", b"HERO6": "YxZ", b"HERO7": "YxZ"}
DEFAULT_ORIENTATION: Final = "ZXY"


@dataclass(frozen=True, slots=True)
class Klv:
    """One record: `type` is "\\0" for a nest."""

    key: bytes
    type: str
    size: int
    repeat: int
    payload: bytes


@dataclass(slots=True)
class Stream:
    """The values of one STRM of one payload."""

    key: bytes
    name: str
    device: bytes
    values: NDArray[np.float64]
    stamp_us: int | None = None
    orientation: str = ""
    fix: int | None = None
    utc: str = ""


@dataclass(slots=True)
class Track:
    """One sensor over the whole file: values (n, channels) and their instants (n,), ns of media time."""

    key: bytes
    name: str
    device: bytes
    orientation: str
    values: NDArray[np.float64]
    stamps_ns: NDArray[np.int64]
    fixes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Payload:
    """One packet of the metadata track."""

    start_ns: int
    duration_ns: int
    streams: list[Stream] = field(default_factory=list)


def records(content: bytes) -> Iterator[Klv]:
    """The records of one level.

    Raises:
        SourceError: a record runs past the end of its parent.
    """
    at = 0
    while at + 8 <= len(content):
        key, kind, size, repeat = struct.unpack_from(">4scBH", content, at)
        if key == b"\0\0\0\0":  # padding to the end of the payload
            return
        length = size * repeat
        if at + 8 + length > len(content):
            raise SourceError(
                f"GPMF: expected {length} bytes of {key.decode('latin-1')!r} at {at}, got {len(content) - at - 8}"
            )
        yield Klv(key, kind.decode("latin-1"), size, repeat, content[at + 8 : at + 8 + length])
        at += 8 + (length + 3) // 4 * 4


def parse(content: bytes) -> list[Stream]:
    """All streams of one payload; those that carry text and no numbers have zero channels.

    Raises:
        SourceError: the payload is cut off or contradicts itself.
    """
    found: list[Stream] = []
    _parse_nest(content, b"", found, 0)
    return found


def tracks(payloads: Sequence[Payload]) -> dict[bytes, Track]:
    """Joins the payloads' streams by key and gives each value its instant."""
    joined: dict[bytes, list[tuple[Payload, Stream]]] = {}
    for payload in payloads:
        for stream in payload.streams:
            joined.setdefault(stream.key, []).append((payload, stream))
    origin_us = next(
        (
            stream.stamp_us - payload.start_ns // 1000
            for key in PICTURE_PACED
            for payload, stream in joined.get(key, [])[:1]
            if stream.stamp_us is not None
        ),
        None,
    )
    return {key: _join(key, parts, origin_us) for key, parts in joined.items()}


def forward_left_up(track: Track) -> NDArray[np.float64]:
    """The track's (n, 3) values on the axes x forward, y left, z up.

    Raises:
        SourceError: there are not three channels, or the orientation names no three axes.
    """
    orientation = track.orientation or _ORIENTATIONS.get(track.device.split()[0] if track.device else b"", "")
    orientation = orientation or DEFAULT_ORIENTATION
    if track.values.shape[1] != 3 or sorted(orientation.upper()) != ["X", "Y", "Z"]:
        raise SourceError(
            f"GPMF {track.key.decode('latin-1')}: expected three channels on axes X, Y and Z, "
            f"got {track.values.shape[1]} on {orientation!r}"
        )
    axes = {
        letter.upper(): track.values[:, channel] * (1.0 if letter.isupper() else -1.0)
        for channel, letter in enumerate(orientation)
    }
    return np.stack([-axes["Y"], axes["X"], axes["Z"]], axis=1)


def _parse_nest(content: bytes, device: bytes, found: list[Stream], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise SourceError(f"GPMF: expected at most {MAX_DEPTH} nested levels, got more")
    for record in records(content):
        if record.key == b"DVNM":
            device = record.payload.rstrip(b"\0")
        elif record.key == b"STRM" and record.type == "\0":
            stream = _parse_stream(record.payload, device)
            if stream is not None:
                found.append(stream)
        elif record.type == "\0":
            _parse_nest(record.payload, device, found, depth + 1)


def _parse_stream(content: bytes, device: bytes) -> Stream | None:
    facts: dict[bytes, Klv] = {}
    value: Klv | None = None
    for record in records(content):
        if record.key in _DESCRIPTIONS:
            facts[record.key] = record
        elif record.type != "\0":
            value = record  # the last one: GoPro writes the values behind their descriptions
    if value is None:
        return None
    values = _scaled(value, facts)
    if values is None:
        values = np.zeros((value.repeat, 0))
    text = {key: fact.payload.rstrip(b"\0").decode("latin-1") for key, fact in facts.items() if fact.type in "cU"}
    stamp_us = _whole(facts.get(b"STMP"), MAX_STAMP_US)
    return Stream(
        key=value.key,
        name=text.get(b"STNM", value.key.decode("latin-1")),
        device=device,
        values=values,
        stamp_us=stamp_us,
        orientation=text.get(b"ORIN", ""),
        fix=_whole(facts.get(b"GPSF"), 3),
        utc=text.get(b"GPSU", ""),
    )


def _scaled(value: Klv, facts: dict[bytes, Klv]) -> NDArray[np.float64] | None:
    """(repeat, channels) in the stream's units; None for text and other things that are no numbers."""
    types = value.type
    if types == "?":
        types = facts[b"TYPE"].payload.rstrip(b"\0").decode("latin-1") if b"TYPE" in facts else ""
    else:
        types *= value.size // max(np.dtype(_DTYPES[types]).itemsize if types in _DTYPES else 1, 1)
    if not types or any(letter not in _DTYPES for letter in types):
        return None
    layout = np.dtype([(str(i), _DTYPES[letter]) for i, letter in enumerate(types)])
    if layout.itemsize != value.size:
        raise SourceError(
            f"GPMF {value.key.decode('latin-1')}: expected {layout.itemsize} bytes a sample, got {value.size}"
        )
    rows = np.frombuffer(value.payload, layout)
    columns = [
        rows[str(i)].astype(np.float64) / {"q": 65536.0, "Q": 4294967296.0}.get(letter, 1.0)
        for i, letter in enumerate(types)
    ]
    values = np.stack(columns, axis=1) if columns else np.zeros((0, 0))
    scale = _scaled(facts[b"SCAL"], {}) if b"SCAL" in facts else None
    if scale is None:
        return values
    divisors = scale.reshape(-1)
    if len(divisors) not in (1, values.shape[1]) or not divisors.all():
        raise SourceError(
            f"GPMF {value.key.decode('latin-1')}: expected 1 or {values.shape[1]} scales other than 0, "
            f"got {divisors.tolist()}"
        )
    return values / divisors


def _whole(fact: Klv | None, highest: int) -> int | None:
    """The fact's first number, where it is one between 0 and `highest`."""
    values = None if fact is None else _scaled(fact, {})
    if values is None or values.size == 0 or not 0 <= values.flat[0] <= highest:
        return None
    return int(values.flat[0])


def _join(key: bytes, parts: list[tuple[Payload, Stream]], origin_us: int | None) -> Track:
    first = parts[0][1]
    widths = {stream.values.shape[1] for _, stream in parts if len(stream.values)}
    if len(widths) > 1:
        raise SourceError(f"GPMF {key.decode('latin-1')}: expected one number of channels, got {sorted(widths)}")
    parts = [(payload, stream) for payload, stream in parts if len(stream.values)] or parts[:1]
    stamped = origin_us is not None and all(stream.stamp_us is not None for _, stream in parts)
    starts = [
        (stream.stamp_us - origin_us) * 1000
        if stamped and stream.stamp_us is not None and origin_us is not None
        else payload.start_ns
        for payload, stream in parts
    ]
    counts = [len(stream.values) for _, stream in parts]
    periods = _periods(starts, counts, parts, stamped)
    return Track(
        key=key,
        name=first.name,
        device=first.device,
        orientation=first.orientation,
        values=np.concatenate([stream.values for _, stream in parts]),
        stamps_ns=np.concatenate(
            [
                start + np.rint(np.arange(count) * period).astype(np.int64)
                for start, count, period in zip(starts, counts, periods)
            ]
        ),
        fixes=np.concatenate(
            [
                np.full(count, -1 if stream.fix is None else stream.fix, np.int64)
                for count, (_, stream) in zip(counts, parts)
            ]
        ),
    )


def _periods(starts: list[int], counts: list[int], parts: list[tuple[Payload, Stream]], stamped: bool) -> list[float]:
    """The spacing of the values in each payload, ns."""
    if not stamped:
        return [payload.duration_ns / max(count, 1) for count, (payload, _) in zip(counts, parts)]
    measured = [(after - start) / max(count, 1) for start, after, count in zip(starts, starts[1:], counts)]
    usual = float(np.median(measured)) if measured else parts[0][0].duration_ns / max(counts[0], 1)
    # A payload that the camera lost stretches the one before it: there the usual period is the better guess.
    return [period if 0.8 * usual < period < 1.25 * usual else usual for period in [*measured, usual]]
