"""Differences of two ONNX files, tensor by tensor.

The bytes of the initializers that both have under one name, of one type and size, are the base's, or their difference
(edge/updates/differences.py); those of others are there as they are. All that lies between them - nodes, names, shapes,
small tensors - is one piece with the base's as dictionary. Nothing is written as protobuf anew: pieces go back to
where they came from, so any writer's bytes come out again.

    table      frame: count, then columns: gap before each tensor, its length, its place in the base, how it is told
    between    frame of what lies between
    literals   frame of the tensors that are there as they are
    by type    for each data type, in the order of its number: the frames of its differences

Each frame stands behind its length (4 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from edge.onnx_fields import DATA_TYPE, NAME, RAW, fields, initializers, number
from edge.updates import frames
from edge.updates.differences import added, of_type, streams_of, subtracted

LITERAL: Final = 0
SAME: Final = 1
DIFFERENT: Final = 2
LEAST_BYTES: Final = 16  # smaller tensors lie among the nodes
MOST_TENSORS: Final = 1 << 16
_ROW: Final = 4 + 4 + 4 + 1  # bytes of a tensor in the table
_COUNT: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file has a tensor's bytes."""

    name: bytes
    data_type: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start


def make(base: bytes, want: bytes) -> bytes | None:
    """The body of a delta; None where the files are no ONNX models with tensors in common."""
    try:
        ours, theirs = places(base), places(want)
    except ValueError:
        return None
    known = {place.name: at for at, place in enumerate(ours)}
    sources, told = [], []
    for place in theirs:
        at = known.get(place.name, -1)
        if at < 0 or (ours[at].data_type, ours[at].length) != (place.data_type, place.length):
            sources.append(0)
            told.append(LITERAL)
            continue
        sources.append(at)
        same = base[ours[at].start : ours[at].end] == want[place.start : place.end]
        told.append(SAME if same else DIFFERENT)
    if all(how == LITERAL for how in told):
        return None
    parts = [frames.shrunk(_table(theirs, sources, told), _own_table(ours))]
    parts.append(frames.shrunk(_between(want, theirs), _between(base, ours)))
    literals = b"".join(want[place.start : place.end] for place, how in zip(theirs, told) if how == LITERAL)
    parts.append(frames.shrunk(literals, base))
    for data_type, rows in _by_type(ours, sources, told).items():
        was = b"".join(base[ours[sources[row]].start : ours[sources[row]].end] for row in rows)
        now = b"".join(want[theirs[row].start : theirs[row].end] for row in rows)
        parts += [frames.shrunk(stream) for stream in subtracted(of_type(data_type), was, now)]
    return b"".join(_COUNT.pack(len(part)) + part for part in parts)


def apply(base: bytes, body: memoryview, length: int) -> bytes:
    """The file.

    Raises:
        ValueError, IndexError, struct.error, zstandard.ZstdError: the body is damaged, or the base is not its own.
    """
    ours = places(base)
    parts = _Parts(body)
    gaps, lengths, sources, told = _read_table(parts, ours, length)
    between = parts.next(length - int(lengths.sum()), _between(base, ours))
    literals = parts.next(int(lengths[told == LITERAL].sum()), base)
    pieces: dict[int, memoryview] = {}
    for data_type, rows in _by_type(ours, sources.tolist(), told.tolist()).items():
        was = b"".join(base[ours[sources[row]].start : ours[sources[row]].end] for row in rows)
        kind = of_type(data_type)
        now = memoryview(added(kind, was, streams_of(kind, len(was), parts.next)))
        at = 0
        for row in rows:
            pieces[row] = now[at : at + int(lengths[row])]
            at += int(lengths[row])
    parts.end()
    return _joined(base, ours, (gaps, lengths, sources, told), (between, literals, pieces))


def places(model: bytes) -> list[Place]:
    """Of the initializers' raw bytes, in the order of the file.

    Raises:
        ValueError: these are not the bytes of an ONNX model, or one with too many tensors.
    """
    found: dict[bytes, Place] = {}
    for start, end in initializers(model):
        place = _place(model, start, end)
        if place is not None:
            found.setdefault(place.name, place)
    if len(found) > MOST_TENSORS:
        raise ValueError(f"expected at most {MOST_TENSORS} tensors, got {len(found)}")
    return list(found.values())


def _place(model: bytes, start: int, end: int) -> Place | None:
    name, data_type, raw = b"", 0, (0, 0)
    for field, first, last in fields(model, start, end):
        if field == NAME:
            name = model[first:last]
        elif field == DATA_TYPE:
            data_type = number(model, first, last)
        elif field == RAW:
            raw = first, last
    return Place(name, data_type, *raw) if raw[1] - raw[0] >= LEAST_BYTES else None


def _between(model: bytes, found: Sequence[Place]) -> bytes:
    starts = [0, *(place.end for place in found)]
    ends = [*(place.start for place in found), len(model)]
    return b"".join(model[start:end] for start, end in zip(starts, ends))


def _table(found: Sequence[Place], sources: Sequence[int], told: Sequence[int]) -> bytes:
    ends = [0, *(place.end for place in found)]
    gaps = np.array([place.start - end for place, end in zip(found, ends)], "<u4")
    lengths = np.array([place.length for place in found], "<u4")
    steps = np.diff(np.array([0, *sources], "<i4"))  # equal for equal orders
    columns = gaps.tobytes() + lengths.tobytes() + steps.astype("<i4").tobytes() + bytes(told)
    return _COUNT.pack(len(found)) + columns


def _own_table(found: Sequence[Place]) -> bytes:
    """As it would be for the same file: the dictionary of a table."""
    return _table(found, range(len(found)), [SAME] * len(found))


_Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _read_table(parts: _Parts, ours: Sequence[Place], length: int) -> _Columns:
    content = parts.next(None, _own_table(ours))
    (count,) = _COUNT.unpack_from(content)
    if len(content) != _COUNT.size + count * _ROW:
        raise ValueError(f"expected a table of {count} tensors, got {len(content)} bytes")
    numbers = np.frombuffer(content, "<u4", 2 * count, _COUNT.size).astype(np.int64)
    gaps, lengths = numbers[:count], numbers[count:]
    sources = np.frombuffer(content, "<i4", count, _COUNT.size + 8 * count).astype(np.int64).cumsum()
    told = np.frombuffer(content, np.uint8, count, _COUNT.size + 12 * count).astype(np.int64)
    if (told > DIFFERENT).any():
        raise ValueError(f"expected tensors told in ways 0 to {DIFFERENT}, got {int(told.max())}")
    if int(gaps.sum() + lengths.sum()) > length:
        raise ValueError(f"expected tensors within {length} bytes, got {int(gaps.sum() + lengths.sum())}")
    theirs = told != LITERAL
    if theirs.any():
        if not ours or sources[theirs].min() < 0 or sources[theirs].max() >= len(ours):
            raise ValueError(f"expected tensors of the base's {len(ours)}, got another")
        sizes = np.array([place.length for place in ours], np.int64)
        if (sizes[sources[theirs]] != lengths[theirs]).any():
            raise ValueError("expected tensors as large as the base's, got another size")
    return gaps, lengths, sources, told


def _by_type(ours: Sequence[Place], sources: Sequence[int], told: Sequence[int]) -> dict[int, list[int]]:
    """Rows that are told as differences, by data type."""
    rows: dict[int, list[int]] = {}
    for row, how in enumerate(told):
        if how == DIFFERENT:
            rows.setdefault(ours[sources[row]].data_type, []).append(row)
    return dict(sorted(rows.items()))


def _joined(
    base: bytes,
    ours: Sequence[Place],
    columns: _Columns,
    given: tuple[bytes, bytes, dict[int, memoryview]],
) -> bytes:
    between, literals, pieces = given
    whole, at, of_literals = [], 0, 0
    for row, (gap, size, source, how) in enumerate(zip(*(column.tolist() for column in columns))):
        whole.append(memoryview(between)[at : at + gap])
        at += gap
        if how == SAME:
            whole.append(memoryview(base)[ours[source].start : ours[source].end])
        elif how == DIFFERENT:
            whole.append(pieces[row])
        else:
            whole.append(memoryview(literals)[of_literals : of_literals + size])
            of_literals += size
    whole.append(memoryview(between)[at:])
    return b"".join(whole)


class _Parts:
    """The frames of a body, one after the other."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def next(self, length: int | None, base: bytes = b"") -> bytes:
        """What is in the next frame, of exactly this length; None takes a table's."""
        (size,) = _COUNT.unpack_from(self._body, self._at)
        start = self._at + _COUNT.size
        if start + size > len(self._body):
            raise ValueError("expected a whole delta, got one that is cut short")
        self._at = start + size
        frame = self._body[start : self._at]
        if length is None:
            length = zstandard.get_frame_parameters(bytes(frame[:32])).content_size
            if length > _COUNT.size + MOST_TENSORS * _ROW:
                raise ValueError(f"expected a table of at most {MOST_TENSORS} tensors, got {length} bytes")
        return frames.unfolded(frame, length, base)

    def end(self) -> None:
        """Nothing follows.

        Raises:
            ValueError: something does.
        """
        if self._at != len(self._body):
            raise ValueError(f"expected the end of the delta, got {len(self._body) - self._at} bytes more")
