"""The weights of an ONNX file, read off its protobuf bytes: the vehicle has no `onnx` package.

Ref: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (numbers of the fields).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

import numpy as np

from edge.errors import BundleError

_GRAPH, _INITIALIZER, _NAME = 7, 5, 8
_DIMS, _DATA_TYPE, _RAW = 1, 2, 9
_TYPED: Final = (4, 5, 6, 7, 10, 11)  # float, int32, string, int64, double, uint64 data
_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5


class Weight:
    """One initializer: the type, the shape and the bytes of its values."""

    __slots__ = ("content", "data_type", "shape")

    def __init__(self, data_type: int, shape: tuple[int, ...], content: bytes) -> None:
        self.data_type, self.shape, self.content = data_type, shape, content

    def changed(self, other: Weight) -> float:
        """Share of the values that differ; 1 where type or shape does."""
        kind = self.data_type, self.shape, len(self.content)
        if kind != (other.data_type, other.shape, len(other.content)):
            return 1.0
        count = prod(self.shape)
        if not count or not self.content or len(self.content) % count:
            return float(self.content != other.content)
        ours, theirs = (np.frombuffer(weight.content, np.uint8).reshape(count, -1) for weight in (self, other))
        return float((ours != theirs).any(axis=1).mean())


def weights(model: bytes) -> dict[str, Weight]:
    """Initializers by name.

    Raises:
        BundleError: these are not the bytes of an ONNX model.
    """
    found = {}
    try:
        for number, graph in _fields(memoryview(model)):
            if number == _GRAPH and isinstance(graph, memoryview):
                for field, tensor in _fields(graph):
                    if field == _INITIALIZER and isinstance(tensor, memoryview):
                        name, weight = _weight(tensor)
                        found[name] = weight
    except (IndexError, ValueError) as error:
        raise BundleError(f"expected an ONNX model, got bytes that are none ({error})") from None
    return found


def _weight(tensor: memoryview) -> tuple[str, Weight]:
    name, data_type, shape, content = "", 0, [], b""
    for number, value in _fields(tensor):
        if number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode(errors="replace")
        elif number == _DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == _DIMS:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _RAW and isinstance(value, memoryview):
            content = bytes(value)
        elif number in _TYPED:
            content += bytes(value) if isinstance(value, memoryview) else value.to_bytes(8, "little")
    return name, Weight(data_type, tuple(shape), content)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _LENGTH:
            size, at = _varint(message, at)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + size]
        at += size


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
