"""Differences of numbers, as streams of bytes that zstd makes small.

Bytes (int8 weights) are subtracted modulo 256; nearly all differences are -1, 0 or 1, so four go into a byte, and the
others follow. Wider numbers are subtracted as whole numbers - floats in their order, so that the difference counts the
floats between them - and go out byte by byte: all lowest bytes, then the next ones. Training moves small floats over
more of their neighbours than large ones; so floats are sorted by the base's exponent, which the other side knows too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Unsigned = NDArray[Any]
Take = Callable[[int], bytes]  # the next stream, of this many bytes
_OTHER: Final = 3  # a difference that is none of -1, 0, 1


@dataclass(frozen=True, slots=True)
class Kind:
    """How a number lies in memory.

    Attributes:
        width: bytes.
        fraction: bits below the exponent; 0 for whole numbers.
    """

    width: int
    fraction: int = 0


_KINDS: Final = {  # of ONNX's data types; all others are bytes
    1: Kind(4, 23), 4: Kind(2), 5: Kind(2), 6: Kind(4), 7: Kind(8), 10: Kind(2, 10), 11: Kind(8, 52), 12: Kind(4),
    13: Kind(8), 16: Kind(2, 7),
}  # fmt: skip


def of_type(data_type: int) -> Kind:
    """Of an ONNX data type."""
    return _KINDS.get(data_type, Kind(1))


def subtracted(kind: Kind, was: bytes, now: bytes) -> list[bytes]:
    """The streams that `added` needs to make `now` of `was`; both of one length."""
    if _is_bytes(kind, len(was)):
        apart = np.frombuffer(now, np.uint8) - np.frombuffer(was, np.uint8)
        codes = np.minimum(apart + np.uint8(1), _OTHER).astype(np.uint8)
        others = apart[codes == _OTHER]
        four = np.pad(codes, (0, -len(codes) % 4)).reshape(-1, 4)
        packed = four[:, 0] | four[:, 1] << 2 | four[:, 2] << 4 | four[:, 3] << 6
        return [packed.astype(np.uint8).tobytes(), others.tobytes()]
    ours, theirs = _numbers(kind, was), _numbers(kind, now)
    apart = _ranked(kind, theirs) - _ranked(kind, ours)
    steps = (apart << _of(kind, 1)) ^ (_of(kind, 0) - (apart >> _of(kind, 8 * kind.width - 1)))  # small either way
    planes = steps[_order(kind, ours)].view(np.uint8).reshape(-1, kind.width)
    return [planes[:, i].tobytes() for i in range(kind.width)]


def streams_of(kind: Kind, length: int, take: Take) -> list[bytes]:
    """The streams of a difference of `length` bytes, each asked for by its length."""
    if not _is_bytes(kind, length):
        return [take(length // kind.width) for _ in range(kind.width)]
    packed = take((length + 3) // 4)
    return [packed, take(int((_unpacked(packed, length) == _OTHER).sum()))]


def added(kind: Kind, was: bytes, streams: list[bytes]) -> bytes:
    """What the difference was made from."""
    if _is_bytes(kind, len(was)):
        codes = _unpacked(streams[0], len(was))
        apart = codes - np.uint8(1)
        apart[codes == _OTHER] = np.frombuffer(streams[1], np.uint8)
        return (np.frombuffer(was, np.uint8) + apart).tobytes()
    ours = _numbers(kind, was)
    planes = np.stack([np.frombuffer(stream, np.uint8) for stream in streams], 1)
    steps = np.empty_like(ours)
    steps[_order(kind, ours)] = planes.reshape(-1).view(ours.dtype)
    apart = (steps >> _of(kind, 1)) ^ (_of(kind, 0) - (steps & _of(kind, 1)))
    return _unranked(kind, _ranked(kind, ours) + apart).tobytes()


def _is_bytes(kind: Kind, length: int) -> bool:
    return kind.width == 1 or length % kind.width > 0


def _unpacked(packed: bytes, length: int) -> NDArray[np.uint8]:
    four = np.frombuffer(packed, np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8)
    return (four & np.uint8(3)).reshape(-1)[:length]


def _numbers(kind: Kind, content: bytes) -> Unsigned:
    return np.frombuffer(content, f"<u{kind.width}")


def _of(kind: Kind, value: int) -> Any:
    return np.dtype(f"<u{kind.width}").type(value)


def _ranked(kind: Kind, numbers: Unsigned) -> Unsigned:
    """Floats' bits as whole numbers in the order of the floats."""
    if not kind.fraction:
        return numbers
    sign = _of(kind, 1 << (8 * kind.width - 1))
    return np.where(numbers & sign, ~numbers, numbers | sign)


def _unranked(kind: Kind, ranks: Unsigned) -> Unsigned:
    if not kind.fraction:
        return ranks
    sign = _of(kind, 1 << (8 * kind.width - 1))
    return np.where(ranks & sign, ranks & ~sign, ~ranks)


def _order(kind: Kind, numbers: Unsigned) -> Any:
    """By exponent, where there is one."""
    if not kind.fraction:
        return slice(None)
    bits = 8 * kind.width - 1 - kind.fraction
    exponents = (numbers >> _of(kind, kind.fraction)) & _of(kind, (1 << bits) - 1)
    return np.argsort(exponents.astype(np.uint16), kind="stable")
