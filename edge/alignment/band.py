"""Which instants of two series may be the same event: bands by time, as columns that each row may visit.

A band in indices means another time wherever the rates differ or frames are missing; these don't. Columns that are out
of the band cost infinity.

Ref: Sakoe, Chiba, IEEE TASSP 26(1), 1978; Itakura, IEEE TASSP 23(1), 1975.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge.alignment.series import I64, Series
from edge.errors import AlignmentError


class Columns(NamedTuple):
    """For each row the first and the last column that it may visit, (n,) int64; neither ever falls."""

    first: I64
    last: I64


@dataclass(frozen=True, slots=True)
class SakoeChiba:
    """Instants at most `radius_ns` apart, once the second series is taken `offset_ns` earlier."""

    radius_ns: int
    offset_ns: int = 0

    def columns(self, a: Series, b: Series) -> Columns:
        """See Columns; empty rows have last < first."""
        centre = a.stamps_ns + self.offset_ns
        first = np.searchsorted(b.stamps_ns, centre - self.radius_ns)
        return Columns(first, np.searchsorted(b.stamps_ns, centre + self.radius_ns, side="right") - 1)


@dataclass(frozen=True, slots=True)
class Itakura:
    """Between both ends, one series runs at most `slope` times as fast as the other; for closed ends alone."""

    slope: float = 2.0

    def columns(self, a: Series, b: Series) -> Columns:
        """See Columns."""
        if self.slope <= 1.0:
            raise AlignmentError(f"Itakura band: expected a slope above 1, got {self.slope}")
        done = _share(a.stamps_ns)
        low = np.maximum(done / self.slope, 1.0 - self.slope * (1.0 - done))
        high = np.minimum(done * self.slope, 1.0 - (1.0 - done) / self.slope)
        rounding = 1e-12
        first = np.searchsorted(_share(b.stamps_ns), low - rounding)
        return Columns(first, np.searchsorted(_share(b.stamps_ns), high + rounding, side="right") - 1)


Band = SakoeChiba | Itakura


def columns_of(band: Band | None, a: Series, b: Series, open_begin: bool, open_end: bool) -> Columns:
    """The columns of a band that some path can follow from begin to end; without a band, all.

    Raises:
        AlignmentError: no path lies inside the band.
    """
    if band is None:
        return Columns(np.zeros(len(a), np.int64), np.full(len(a), len(b) - 1))
    first, last = band.columns(a, b)
    empty = np.flatnonzero(last < first)
    if len(empty):
        at_s = (a.stamps_ns[empty[0]] - a.stamps_ns[0]) / 1e9
        raise AlignmentError(f"{band}: expected an instant of the second series in every row, got none at {at_s:.3f} s")
    torn = np.flatnonzero(first[1:] > last[:-1] + 1)
    if len(torn):
        at_s = (a.stamps_ns[torn[0]] - a.stamps_ns[0]) / 1e9
        raise AlignmentError(f"{band}: expected rows that touch, got a hole of the second series at {at_s:.3f} s")
    if (first[0] > 0 and not open_begin) or (last[-1] < len(b) - 1 and not open_end):
        raise AlignmentError(f"{band}: expected both series' ends inside, got ends that are farther apart")
    return Columns(first, last)


def _share(stamps_ns: I64) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How much of the series' time has gone, 0..1; one instant alone is its own begin and end."""
    span_ns = stamps_ns[-1] - stamps_ns[0]
    return (stamps_ns - stamps_ns[0]) / span_ns if span_ns else np.linspace(0.0, 1.0, len(stamps_ns))
