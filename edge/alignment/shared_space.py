"""Agreement of the encoders' embeddings in their shared space: how like each other two modalities usually are, and now.

For each pair the cosine's mean and variance are learned while both are healthy, exponentially weighted; what counts is
by how many deviations it falls below. A modality gone wrong falls with all of its partners.

Ref: Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4, 1962, in its
exponentially weighted form (Finch, 2009).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SLOW_S: Final = 15.0
_FAST_S: Final = 0.4
_WARM_S: Final = 2.0  # of a pair, before it can be compared with
_LEAST_DEVIATION: Final = 0.04  # of a cosine
_MOST_DEVIATIONS: Final = 10.0
_LEARNED: Final = 2.0  # deviations; what is further off moves mean and variance no more than that
_FREE: Final = 1.5  # deviations that are of no concern
_SPAN: Final = 4.0  # from there to no agreement at all
_HALTED: Final = 0.1
_MOST_S: Final = 1e4
_TINY: Final = 1e-12  # squared lengths of embeddings that have a direction
_HUGE: Final = 1e18


class SharedSpace:
    """What successive embeddings say of each other. All attributes are state.

    Attributes:
        deviations: by modality, by how many deviations it is less like the others than usual; 0 where unknown.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        pairs = list(combinations(names, 2))
        self.deviations = dict.fromkeys(names, 0.0)
        self._mean = dict.fromkeys(pairs, 0.0)
        self._variance = dict.fromkeys(pairs, _LEAST_DEVIATION**2)
        self._fall = dict.fromkeys(pairs, 0.0)
        self._seen_s = dict.fromkeys(pairs, 0.0)

    def see(self, embeddings: Mapping[str, NDArray[Any]], elapsed_s: float, suspected: Collection[str]) -> float:
        """Take a frame's embeddings; how much they agree, 0..1 (1 where nothing is known).

        Args:
            embeddings: by modality, any shape of one and the same size; those that are missing say nothing.
            suspected: modalities whose state is hardly learned.
        """
        rows: dict[str, tuple[NDArray[Any], float]] = {}
        for name in self.deviations:
            self.deviations[name] = 0.0
            row = embeddings.get(name)
            if row is not None:
                row = row.reshape(-1)
                power = float(np.vdot(row, row))
                if _TINY < power < _HUGE:  # not NaN either
                    rows[name] = row, power
        fast = elapsed_s / (_FAST_S + elapsed_s)
        for pair in self._mean:
            first, second = pair
            if first in rows and second in rows and rows[first][0].size == rows[second][0].size:
                (a, a_power), (b, b_power) = rows[first], rows[second]
                cosine = float(a.dot(b)) / (a_power * b_power) ** 0.5
                halted = _HALTED if first in suspected or second in suspected else 1.0
                fall = self._compare(pair, cosine, elapsed_s, fast, halted)
                self.deviations[first] += fall / (len(rows) - 1)
                self.deviations[second] += fall / (len(rows) - 1)
        return min(max(1.0 - (max(self.deviations.values()) - _FREE) / _SPAN, 0.0), 1.0)

    def _compare(self, pair: tuple[str, str], cosine: float, elapsed_s: float, fast: float, halted: float) -> float:
        """By how many deviations the pair is below its usual cosine, smoothed; learns it."""
        seen_s, off = self._seen_s[pair], cosine - self._mean[pair]
        fall = 0.0
        if seen_s >= _WARM_S:
            deviation = max(self._variance[pair] ** 0.5, _LEAST_DEVIATION)
            fall = min(max(-off / deviation, -_MOST_DEVIATIONS), _MOST_DEVIATIONS)
            off = min(max(off, -_LEARNED * deviation), _LEARNED * deviation)
        self._fall[pair] += fast * (fall - self._fall[pair])
        if seen_s == 0.0:
            self._mean[pair] = cosine
        else:
            slow = elapsed_s / (min(seen_s, _SLOW_S) + elapsed_s) * halted
            self._mean[pair] += slow * off
            self._variance[pair] = (1.0 - slow) * (self._variance[pair] + slow * off * off)
        self._seen_s[pair] = min(seen_s + max(elapsed_s, 1e-9), _MOST_S)
        return self._fall[pair]
