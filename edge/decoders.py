"""Decoders: how a detector's outputs become rows of (class, probability, left, top, width, height), or (..., kind).

Only what is at least as probable as a threshold becomes a row: a grid has hundreds of cells, and few objects.
Boxes are in fractions of the picture. A reference bundle's graph does this itself; foreign models name one of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError

Rows = list[list[float]]
_IOU_OF_ONE_OBJECT: Final = 0.45
_MIN_PROBABILITY: Final = 0.05
_MAX_OBJECTS: Final = 64


def in_graph(outputs: Mapping[str, NDArray[Any]], roles: Mapping[str, str], threshold: float) -> Rows:
    """The graph gives the rows."""
    if "objects" not in roles:
        return []
    return [row for row in outputs[roles["objects"]][0].tolist() if row[1] >= threshold]


def fastestdet(outputs: Mapping[str, NDArray[Any]], roles: Mapping[str, str], threshold: float) -> Rows:
    """FastestDet: one grid of (objectness, x, y, w, h offsets, class probabilities).

    Ref: https://github.com/dog-qiuqiu/FastestDet (its C++ example decodes the same way).
    """
    grid = outputs[roles["objects"]][0]  # (5 + classes, rows, columns)
    _, height, width = grid.shape
    scores = grid[0] ** 0.6 * grid[5:].max(axis=0) ** 0.4
    rows: Rows = []
    for y, x in np.argwhere(scores >= max(threshold, _MIN_PROBABILITY)).tolist():
        dx, dy, w, h = grid[1:5, y, x].tolist()
        box_width, box_height = (1 + math.tanh(w / 2)) / 2, (1 + math.tanh(h / 2)) / 2  # sigmoids, of any value
        left = (x + math.tanh(dx)) / width - box_width / 2
        top = (y + math.tanh(dy)) / height - box_height / 2
        rows.append([float(grid[5:, y, x].argmax()), float(scores[y, x]), left, top, box_width, box_height])
    return suppressed(rows)


def ssd(outputs: Mapping[str, NDArray[Any]], roles: Mapping[str, str], threshold: float) -> Rows:
    """SSD detectors whose graph has applied priors: probabilities with the background first, corners of boxes.

    Ref: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB (its ONNX example decodes the same way).
    """
    scores, corners = outputs[roles["objects"]][0], outputs[roles["boxes"]][0]  # (boxes, 1 + classes), (boxes, 4)
    rows: Rows = []
    for box, which in np.argwhere(scores[:, 1:] >= max(threshold, _MIN_PROBABILITY)).tolist():
        left, top, right, bottom = corners[box].tolist()
        rows.append([float(which), float(scores[box, 1 + which]), left, top, right - left, bottom - top])
    return suppressed(rows)


def check_objects(
    path: Path,
    decoder: str,
    outputs: Mapping[str, NDArray[Any]],
    roles: Mapping[str, str],
    labels: int,
    kinds: bool = False,
) -> None:
    """Refuse outputs that the decoder does not understand.

    Args:
        outputs: by tensor name; `roles` says which is what.
        kinds: whether each row ends with its finer kind.

    Raises:
        BundleError: what, expected, got.
    """
    if decoder not in DECODERS:
        raise BundleError(f"{path}: expected a decoder of {sorted(DECODERS)}, got {decoder!r}")
    shape = outputs[roles["objects"]].shape
    if decoder == "ssd":
        boxes = outputs[roles["boxes"]].shape if "boxes" in roles else ()
        wanted = f"(1, boxes, 1 + {labels}) and an output boxes of (1, boxes, 4)"
        holds = len(shape) == 3 and shape[::2] == (1, 1 + labels) and boxes == (*shape[:2], 4)
        shape = (*shape, *([boxes] if boxes else []))
    elif decoder == "fastestdet":
        wanted, holds = f"(1, 5 + {labels}, rows, columns)", len(shape) == 4 and shape[:2] == (1, 5 + labels)
    else:
        width = 7 if kinds else 6
        wanted, holds = f"(1, objects, {width})", len(shape) == 3 and shape[::2] == (1, width)
    if not holds:
        raise BundleError(f"{path}: expected objects of {wanted}, got {shape}")


def suppressed(rows: Rows) -> Rows:
    """The best row of each object: no two of one class overlap by more than 0.45."""
    kept: Rows = []
    for row in sorted(rows, key=lambda row: -row[1]):
        if all(row[0] != other[0] or _iou(row, other) < _IOU_OF_ONE_OBJECT for other in kept):
            kept.append(row)
            if len(kept) == _MAX_OBJECTS:
                break
    return kept


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[2] + a[4], b[2] + b[4]) - max(a[2], b[2])
    height = min(a[3] + a[5], b[3] + b[5]) - max(a[3], b[3])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a[4] * a[5] + b[4] * b[5] - both)


DECODERS: Final[dict[str, Callable[[Mapping[str, NDArray[Any]], Mapping[str, str], float], Rows]]] = {
    "": in_graph,
    "fastestdet": fastestdet,
    "ssd": ssd,
}
