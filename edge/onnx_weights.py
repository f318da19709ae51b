"""The weights of an ONNX file."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np

from edge.errors import BundleError
from edge.onnx_fields import DATA_TYPE, DIMS, NAME, RAW, fields, initializers, number, numbers

_TYPED: Final = (4, 5, 6, 7, 10, 11)  # float, int32, string, int64, double, uint64 data


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
    try:
        return dict(_weight(model, start, end) for start, end in initializers(model))
    except ValueError as error:
        raise BundleError(f"expected an ONNX model, got bytes that are none ({error})") from None


def _weight(model: bytes, start: int, end: int) -> tuple[str, Weight]:
    name, data_type, content = "", 0, b""
    shape: tuple[int, ...] = ()
    for field, first, last in fields(model, start, end):
        if field == NAME:
            name = model[first:last].decode(errors="replace")
        elif field == DATA_TYPE:
            data_type = number(model, first, last)
        elif field == DIMS:
            shape += tuple(numbers(model, first, last))
        elif field == RAW or field in _TYPED:
            content += model[first:last]
    return name, Weight(data_type, shape, content)
