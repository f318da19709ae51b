"""Where the fields lie in the protobuf bytes of an ONNX file: the vehicle has no `onnx` package.

Ref: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (numbers of the fields).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_GRAPH: Final = 7  # of a model
_INITIALIZER: Final = 5  # of a graph
DIMS: Final = 1  # of a tensor, as those that follow
DATA_TYPE: Final = 2
NAME: Final = 8
RAW: Final = 9
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


def initializers(model: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each, in the order of the file.

    Raises:
        ValueError: these are not the bytes of an ONNX model.
    """
    for outer, start, end in fields(model, 0, len(model)):
        if outer == _GRAPH:
            for inner, first, last in fields(model, start, end):
                if inner == _INITIALIZER:
                    yield first, last


def fields(model: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number of each field, start and end of its content.

    Raises:
        ValueError: these are not the bytes of a message.
    """
    at = start
    while at < end:
        key, at = _varint(model, at, end)
        kind, first = key & 7, at
        if kind == _VARINT:
            _, at = _varint(model, at, end)
        elif kind == _LENGTH:
            size, first = _varint(model, at, end)
            at = first + size
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"expected a field of protobuf, got wire type {kind}")
        if at > end:
            raise ValueError("expected a whole field, got one that is cut short")
        yield key >> 3, first, at


def number(model: bytes, start: int, end: int) -> int:
    """A whole number that is a field's content.

    Raises:
        ValueError: it does not end.
    """
    return _varint(model, start, end)[0]


def numbers(model: bytes, start: int, end: int) -> list[int]:
    """Whole numbers of a field, packed or one.

    Raises:
        ValueError: one does not end.
    """
    found, at = [], start
    while at < end:
        value, at = _varint(model, at, end)
        found.append(value)
    return found


def _varint(model: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("expected a number, got one that does not end")
