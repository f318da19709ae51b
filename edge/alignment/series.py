"""What a stream says over time: feature vectors with their instants, checked once so that nothing after must."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import AlignmentError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Features of one stream. A frame that is missing is simply not there: stamps, not indices, are time.

    Args:
        stamps_ns: (n,) int64, ascending, each instant once; n >= 1.
        values: (n, d) or (n,), finite; kept as (n, d) float64.

    Raises:
        AlignmentError: empty, not ascending, not finite, or of unequal lengths.
    """

    stamps_ns: I64
    values: F64

    def __post_init__(self) -> None:
        stamps, values = np.asarray(self.stamps_ns), np.asarray(self.values, np.float64)
        if values.ndim == 1:
            values = values[:, None]
        if stamps.ndim != 1 or stamps.dtype.kind not in "iu":
            raise AlignmentError(f"stamps: expected (n,) integers in ns, got {stamps.dtype} {stamps.shape}")
        if not len(stamps) or values.ndim != 2 or not values.shape[1]:
            raise AlignmentError(f"series: expected at least one value of at least one feature, got {values.shape}")
        if len(stamps) != len(values):
            raise AlignmentError(f"series: expected a stamp a value, got {len(stamps)} stamps and {len(values)} values")
        if not (np.diff(stamps) > 0).all():
            at = int(np.argmax(np.diff(stamps) <= 0)) + 1
            raise AlignmentError(f"stamps: expected ascending ones, got {stamps[at]} after {stamps[at - 1]}")
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            at = int(np.argmin(finite))
            raise AlignmentError(f"series: expected finite values, got {values[at].tolist()} at index {at}")
        object.__setattr__(self, "stamps_ns", stamps.astype(np.int64))
        object.__setattr__(self, "values", np.ascontiguousarray(values))

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def without(self, missing: NDArray[np.bool_]) -> Series:
        """The same without the frames that are `missing`, (n,) bool."""
        return Series(self.stamps_ns[~missing], self.values[~missing])

    def later(self, shift_ns: int) -> Series:
        """The same, every instant later by `shift_ns`."""
        return Series(self.stamps_ns + shift_ns, self.values)

    def between(self, start_ns: int, end_ns: int) -> Series:
        """What lies from one instant to another, both included.

        Raises:
            AlignmentError: nothing does.
        """
        low, high = np.searchsorted(self.stamps_ns, (start_ns, end_ns + 1))
        return Series(self.stamps_ns[low:high], self.values[low:high])
