"""Columns of a timeline: a frame each, or, in a long drive, equal runs of frames of which the extremes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.report.history import History, Series

MAX_COLUMNS: Final = 1600
# A curve of its own rate needs no more points than a screen has.
MAX_POINTS: Final = 800


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the columns begin.

    Attributes:
        rows: (columns,) first row of each column.
        stamps_ns: (columns,) stamp of that row.
        times_s: (columns + 1,) begin of each column and the end of the last, seconds since the first frame.
    """

    rows: NDArray[np.intp]
    stamps_ns: NDArray[np.int64]
    times_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def max(self, values: NDArray[Any]) -> NDArray[Any]:
        """The largest value of each column."""
        return np.maximum.reduceat(values, self.rows)

    def min(self, values: NDArray[Any]) -> NDArray[Any]:
        """The smallest value of each column."""
        return np.minimum.reduceat(values, self.rows)

    def at(self, series: Series) -> NDArray[np.float32]:
        """The curve's nearest value at the begin of each column."""
        after = np.searchsorted(series.stamps_ns, self.stamps_ns).clip(1, max(len(series) - 1, 1))
        before = after - 1
        after = after.clip(0, len(series) - 1)
        nearer = np.abs(series.stamps_ns[after] - self.stamps_ns) < np.abs(series.stamps_ns[before] - self.stamps_ns)
        picked: NDArray[np.float32] = np.where(nearer, series.values[after], series.values[before])
        return picked


def grid(history: History, columns: int = MAX_COLUMNS) -> Grid:
    """The columns of a history; as many as frames where those are fewer."""
    frames = len(history)
    rows = np.linspace(0, frames, min(columns, frames), endpoint=False).astype(np.intp)
    stamps = history.stamps_ns[rows]
    times = np.append((stamps - history.first_ns) / 1e9, history.duration_s)
    return Grid(rows, stamps, times)


def envelope(history: History, series: Series) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """A curve with few points: seconds since the first frame, and lowest and highest value from there on."""
    inside = (series.stamps_ns >= history.first_ns) & (
        series.stamps_ns <= history.first_ns + round(history.duration_s * 1e9)
    )
    stamps, values = series.stamps_ns[inside], series.values[inside]
    if not len(stamps):
        return np.zeros(0), np.zeros(0, np.float32), np.zeros(0, np.float32)
    starts = np.linspace(0, len(stamps), min(MAX_POINTS, len(stamps)), endpoint=False).astype(np.intp)
    times = (stamps[starts] - history.first_ns) / 1e9
    return times, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def runs(codes: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Equal neighbours as (first, one past the last, code)."""
    if not len(codes):
        return []
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts, ends = np.append(0, edges), np.append(edges, len(codes))
    return [(int(start), int(end), int(codes[start])) for start, end in zip(starts, ends)]
