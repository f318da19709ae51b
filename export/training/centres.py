"""Object maps that a perfect network would give: a bump at each centre, drawn only where it is not zero."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.model.contract import GRID
from export.model.labels import OBJECTS

LEAST_SPREAD = 0.5  # cells, standard deviation
SPREAD = 0.12  # of the object's size
REACH = 3.0  # standard deviations that are drawn
SPARED = 0.3  # an ignored object spares the cells where its bump is higher


class Centres(NamedTuple):
    """heat, care: (b, classes, 48, 80) float32; care is 0 where an ignored object is. size: (b, boxes, 4) as
    CameraEncoder gives them. cell: (b, boxes) int64, -1 where nothing is to be learned."""

    heat: NDArray[np.float32]
    care: NDArray[np.float32]
    size: NDArray[np.float32]
    cell: NDArray[np.int64]


def centres(boxes: NDArray[np.float32]) -> Centres:
    """boxes: (batch, boxes, 9) as targets.Targets."""
    rows, columns = GRID
    heat = np.zeros((len(boxes), len(OBJECTS), rows, columns), np.float32)
    spared = np.zeros_like(heat)
    there = (boxes[..., 0] >= 0) & (boxes[..., 5] > 0)
    width, height = np.maximum(boxes[..., 3], 1e-3), np.maximum(boxes[..., 4], 1e-3)
    x, y = (boxes[..., 1] + 0.5 * width) * columns, (boxes[..., 2] + 0.5 * height) * rows
    column, row = np.clip(np.floor(x), 0, columns - 1), np.clip(np.floor(y), 0, rows - 1)
    spread_x = np.maximum(SPREAD * width * columns, LEAST_SPREAD)
    spread_y = np.maximum(SPREAD * height * rows, LEAST_SPREAD)
    for i, j in zip(*np.nonzero(boxes[..., 0] >= 0)):
        drawn = heat if there[i, j] else spared
        _bump(drawn[i, int(boxes[i, j, 0])], row[i, j], column[i, j], spread_y[i, j], spread_x[i, j])
    care = 1.0 - ((spared > SPARED) & (heat < SPARED)).astype(np.float32)
    size = np.stack([x - column - 0.5, y - row - 0.5, np.log(width), np.log(height)], -1).astype(np.float32)
    return Centres(heat, care, size, np.where(there, row * columns + column, -1).astype(np.int64))


def _bump(plane: NDArray[np.float32], row: float, column: float, spread_y: float, spread_x: float) -> None:
    """Raises a plane to a bump around a cell."""
    reach_y, reach_x = int(REACH * spread_y) + 1, int(REACH * spread_x) + 1
    top, left = max(int(row) - reach_y, 0), max(int(column) - reach_x, 0)
    part = plane[top : int(row) + reach_y + 1, left : int(column) + reach_x + 1]
    dy = (np.arange(top, top + part.shape[0]) - row) / spread_y
    dx = (np.arange(left, left + part.shape[1]) - column) / spread_x
    np.maximum(part, np.exp(-0.5 * dy * dy)[:, None] * np.exp(-0.5 * dx * dx)[None, :], out=part, casting="unsafe")
