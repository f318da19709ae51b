"""The overload ladder: what is shed when a frame takes longer than there is time.

Each level skips more encoders a frame, the freshest embedding first: what was computed last loses least by being used
once more. Fusion is never skipped, so the recurrent state stays warm and every frame gets its decision. The ladder sees
only values that are recorded (lateness, time taken), so a replay of what happened climbs the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Encoders skipped a frame at each level; at the last, all but one of every LAST_LEVEL_STRIDE frames.
SKIPPED: Final = (0, 1, 2, 3)
LAST_LEVEL: Final = len(SKIPPED) - 1
LAST_LEVEL_STRIDE: Final = 4
# A frame that took more than this share of the period is over.
OVER: Final = 0.9
FRAMES_TO_CLIMB: Final = 2
# Going down is tried after so many good frames, twice as many each time it failed.
FRAMES_TO_DESCEND: Final = 40
MAX_FRAMES_TO_DESCEND: Final = 1280


class OverloadLadder:
    """One rung up after two frames that took too long, one down after a quiet while.

    Attributes:
        level: 0 full service .. LAST_LEVEL.
    """

    __slots__ = ("_calm", "_over", "_patience", "_probing", "level")

    def __init__(self) -> None:
        self.level = 0
        self._over = 0
        self._calm = 0
        self._patience = FRAMES_TO_DESCEND
        self._probing = 0  # frames since the last descent

    def observe(self, elapsed_ns: int, late_ns: int, period_ns: int) -> None:
        """See a finished frame.

        Args:
            elapsed_ns: time that the frame took; 0 where nothing is measured.
            late_ns: how long after its deadline the frame left.
            period_ns: between frames.
        """
        self._probing += 1
        if elapsed_ns > OVER * period_ns or late_ns > 0:
            self._calm = 0
            self._over += 1
            if late_ns > 2 * period_ns:  # a backlog: catch up now, ask later
                self.level = LAST_LEVEL
            elif self._over >= FRAMES_TO_CLIMB and self.level < LAST_LEVEL:
                self._climb()
            return
        self._over = 0
        self._calm += 1
        if self.level and self._calm >= self._patience:
            self.level -= 1
            self._calm = self._probing = 0
        elif not self.level and self._calm >= MAX_FRAMES_TO_DESCEND:
            self._patience = FRAMES_TO_DESCEND

    def _climb(self) -> None:
        self.level += 1
        self._over = 0
        if self._probing <= FRAMES_TO_DESCEND:  # the last descent did not hold
            self._patience = min(2 * self._patience, MAX_FRAMES_TO_DESCEND)

    def shed(self, ages: Sequence[int], index: int) -> frozenset[int]:
        """Which encoders to skip.

        Args:
            ages: frames since each encoder ran, costliest encoder first; equal ages shed the costlier one.
            index: of the decision.
        """
        count = min(SKIPPED[self.level], len(ages))
        if self.level == LAST_LEVEL:
            count = len(ages) if index % LAST_LEVEL_STRIDE else max(len(ages) - 1, 0)
        order = sorted(range(len(ages)), key=lambda i: (ages[i], i))
        return frozenset(order[:count])
