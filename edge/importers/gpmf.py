"""GoPro's telemetry format (GPMF): the key-length-value bytes of one payload into streams of scaled values.

Ref: https://github.com/gopro/gpmf-parser (README, "GPMF Deeper Dive").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
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
_DTYPES: Final = {
    "b": ">i1", "B": ">u1", "s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "f": ">f4", "d": ">f8", "j": ">i8",
    "J": ">u8", "q": ">i4", "Q": ">i8",
}  # fmt: skip


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
        repeat = repeat if size else 0  # values of no bytes are none, however many there are said to be
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
