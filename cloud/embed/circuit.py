"""Whether to ask a server that may be away: after a failure it is left alone, for longer each time it fails anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = 30.0


class Circuit:
    """Of one server. After a rest one call goes through, and what it finds counts for all.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rest_s = 0.0  # 0: it answers
        self._until_s = 0.0
        self._spell = 0  # counts failures, so that calls that began before one are none of the next

    def enter(self) -> int | None:
        """What `succeeded` or `failed` is to be told for this call; None: leave the server alone."""
        if self._rest_s:
            now_s = self._clock()
            if now_s < self._until_s:
                return None
            self._until_s = now_s + self._rest_s  # the others wait for what this one finds
        return self._spell

    def succeeded(self, spell: int) -> None:
        """The call was answered."""
        if spell == self._spell:
            self._rest_s = 0.0

    def failed(self, spell: int) -> None:
        """It was not, or too late."""
        if spell == self._spell:
            self._spell += 1
            self._rest_s = min(max(2.0 * self._rest_s, FIRST_REST_S), LONGEST_REST_S)
            self._until_s = self._clock() + self._rest_s
