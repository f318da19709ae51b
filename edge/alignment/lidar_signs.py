"""Vital signs of the LiDAR, from some returns of each new sweep: directions gone blind, and returns from thin air.

A blind direction is one that had returns and lost them: what a sensor never saw is not missed. Spray and noise give
near returns all around, where walls and vehicles beside are near on some sides only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.samples import Sweep

KINDS: Final = ("blocked", "ghosts")
SECTORS: Final = 36
_LOOKED_AT: Final = 1200  # returns of a sweep, evenly
_NEAR_M: Final = 2.5
_FARTHEST_M2: Final = 1e8  # what is no number is farther, too
_BLIND: Final = 0.2  # of its usual returns, below which a sector is blind
_SEEN: Final = 0.003  # share of the returns, from which a sector counts as one that sees
_FAST: Final = 0.4  # of a sweep
_SLOW: Final = 0.02
_HALTED: Final = 0.1  # how fast the healthy state is still learned while the LiDAR is suspected
_WARM: Final = 5  # sweeps


class LidarSigns:
    """What successive sweeps say of the LiDAR. All attributes are state.

    Attributes:
        measures: in the order of KINDS: neighbouring sectors that went blind; share of the returns that are near, in
            the half of the sectors in which the fewest are.
    """

    def __init__(self) -> None:
        self.measures = [0.0] * len(KINDS)
        self._last = (-1, -1)
        self._sweeps = 0
        self._returns = np.zeros((2, SECTORS))  # further than _NEAR_M, and near, of a sweep
        self._usual = np.zeros(SECTORS)  # of both

    def see(self, sweep: Sweep, suspected: bool) -> None:
        """Take a sweep; the same one again is nothing new."""
        if (sweep.stamp_ns, sweep.seq) == self._last:
            return
        self._last = sweep.stamp_ns, sweep.seq
        some = sweep.points_lidar[:: max(len(sweep.points_lidar) // _LOOKED_AT, 1), :3]
        places = np.ascontiguousarray(some.T, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            reach = (places * places).sum(axis=0)
        turn = np.arctan2(places[1], places[0])
        seen = reach < _FARTHEST_M2
        if not seen.all():
            reach, turn = reach[seen], turn[seen]
        cell = ((turn + np.float32(np.pi)) * np.float32(SECTORS / (2 * np.pi) * (1 - 1e-6))).astype(np.int64)
        cell += SECTORS * (reach < _NEAR_M * _NEAR_M)
        scale = len(sweep.points_lidar) / max(len(some), 1)
        self._learn(scale * np.bincount(cell, minlength=2 * SECTORS).reshape(2, SECTORS), suspected)
        near, counts = self._returns[1], self._returns.sum(axis=0)
        blind = (counts < _BLIND * self._usual) & (self._usual > _SEEN * self._usual.sum())
        run = _longest_run(blind.tolist()) if self._sweeps > _WARM and blind.any() else 0
        fewest = np.argpartition(near, SECTORS // 2)[: SECTORS // 2]
        self.measures[:] = float(run), float(near[fewest].sum()) / max(float(counts[fewest].sum()), 1.0)

    def _learn(self, returns: NDArray[np.floating], suspected: bool) -> None:
        fast = _FAST if self._sweeps else 1.0
        self._sweeps = min(self._sweeps + 1, 1000)
        slow = max(_SLOW, 1.0 / self._sweeps) * (_HALTED if suspected else 1.0)
        self._returns += fast * (returns - self._returns)
        self._usual += slow * (self._returns.sum(axis=0) - self._usual)


def _longest_run(flags: list[bool]) -> int:
    """Of true ones, around the circle."""
    if all(flags):
        return len(flags)
    longest = run = 0
    for flag in flags + flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
