"""Histograms of activations that merge exactly: any number of vehicles, any order, the same counts.

A bin is [i, i + 1) x 2**shift: widths are powers of two and 0 is always an edge, so two neighbours of one width are one
bin of the next. The width follows from the largest magnitude alone; whoever saw less is brought to it without error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError

SIDE: Final = 512  # bins on each side of 0; of these the largest magnitude uses at least 256, two a quantum of int8
_MIN_SHIFT: Final = -120  # widths below are no float32 any more
_BITS: Final = SIDE.bit_length() - 1

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """What one tensor was, over all its elements of all samples.

    Attributes:
        low, high: the exact extremes.
        zeros: elements that were exactly 0 (they are in no bin): what a ReLU cut off costs no accuracy.
        shift: log2 of the bins' width.
        first: index of the first bin that is not empty.
        counts: from there to the last bin that is not empty.
    """

    low: float
    high: float
    zeros: int
    shift: int
    first: int
    counts: tuple[int, ...]

    @staticmethod
    def of(values: NDArray[np.float32]) -> Histogram:
        """Counts an array of any shape.

        Raises:
            ConfigError: a value is not finite.
        """
        low, high = float(values.min()) + 0.0, float(values.max()) + 0.0  # no -0.0
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ConfigError(f"ranges: expected finite activations, got {low} to {high}")
        shift = _shift(max(-low, high))
        flat = values.reshape(-1)
        scaled = flat * np.float32(2.0**-shift)  # exactly, but for what underflows
        index = np.floor(scaled, out=scaled).astype(np.int16)
        if low < 0.0:
            index -= (flat < 0) & (index == 0)  # so small beside the widest that it underflowed to -0
        index += SIDE
        dense = np.bincount(index, minlength=2 * SIDE)
        zeros = int(flat.size - np.count_nonzero(flat))
        dense[SIDE] -= zeros
        return _packed(low, high, zeros, shift, dense)

    def merged(self, other: Histogram) -> Histogram:
        """What both saw."""
        shift = max(self.shift, other.shift)
        dense = self._at(shift) + other._at(shift)
        return _packed(min(self.low, other.low), max(self.high, other.high), self.zeros + other.zeros, shift, dense)

    def magnitudes(self) -> tuple[NDArray[np.float64], Counts]:
        """Middle of each bin of |value|, ascending, and its count; exact zeros are left out."""
        dense = self._at(self.shift)
        folded = dense[SIDE:] + dense[:SIDE][::-1]
        middles = (np.arange(SIDE) + 0.5) * 2.0**self.shift
        return middles.astype(np.float64), folded

    def check(self, name: str) -> None:
        """Refuse what `of` and `merged` never make.

        Raises:
            ConfigError: the extremes or the bins contradict themselves.
        """
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise ConfigError(f"ranges: {name}: expected finite low <= high, got {self.low} and {self.high}")
        last = self.first + len(self.counts)
        fits = not self.counts or (self.first >= -SIDE and last <= SIDE)
        if not fits or min(self.counts, default=0) < 0 or self.zeros < 0 or self.shift != _shift(self.magnitude):
            raise ConfigError(
                f"ranges: {name}: expected counts in {2 * SIDE} bins of width 2**{_shift(self.magnitude)}, "
                f"got {len(self.counts)} from {self.first} of width 2**{self.shift}"
            )

    @property
    def magnitude(self) -> float:
        """The largest |value|."""
        return max(-self.low, self.high)

    def _at(self, shift: int) -> Counts:
        """All bins at a width that is this one's or wider."""
        index = np.arange(self.first, self.first + len(self.counts)) >> (shift - self.shift)
        dense = np.zeros(2 * SIDE, np.int64)
        np.add.at(dense, index + SIDE, np.array(self.counts, np.int64))
        return dense


def _shift(magnitude: float) -> int:
    """log2 of the narrowest width at which +-magnitude lies inside the bins."""
    return max(int(np.frexp(magnitude)[1]) - _BITS, _MIN_SHIFT) if magnitude else _MIN_SHIFT


def _packed(low: float, high: float, zeros: int, shift: int, dense: Counts) -> Histogram:
    filled = np.flatnonzero(dense)
    if not len(filled):
        return Histogram(low, high, zeros, shift, 0, ())
    first, last = int(filled[0]), int(filled[-1])
    return Histogram(low, high, zeros, shift, first - SIDE, tuple(dense[first : last + 1].tolist()))
