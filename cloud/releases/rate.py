"""How often, and with how many calls at once, one vehicle may ask: rules without a clock of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import grpc

from cloud.errors import Refused

MOST_KNOWN: Final = 200_000


class Rate:
    """A bucket of calls for each vehicle, filled again over time.

    Args:
        burst: calls at once.
        per_s: calls that are added each second, up to `burst`.
    """

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, vehicle: str, now_s: float) -> None:
        """Take one call.

        Args:
            now_s: of a clock that does not go back.

        Raises:
            Refused: RESOURCE_EXHAUSTED: there was none left.
        """
        if len(self._left) >= MOST_KNOWN:
            self._left.clear()
        left, at_s = self._left.get(vehicle, (float(self._burst), now_s))
        left = min(left + (now_s - at_s) * self._per_s, float(self._burst))
        if left < 1.0:
            self._left[vehicle] = left, now_s
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected at most {self._burst} calls at once, got more: wait"
            )
        self._left[vehicle] = left - 1.0, now_s


class Places:
    """Long calls under way: of each vehicle, and of all together.

    Args:
        of_one: that a vehicle may have.
        of_all: that all of them may have, so that others still get through.
    """

    def __init__(self, of_one: int, of_all: int) -> None:
        self._of_one = of_one
        self._of_all = of_all
        self._taken: dict[str, int] = {}

    @contextlib.contextmanager
    def taken(self, vehicle: str) -> Iterator[None]:
        """Hold a place for the length of the block.

        Raises:
            Refused: RESOURCE_EXHAUSTED: there is none.
        """
        if self._taken.get(vehicle, 0) >= self._of_one or sum(self._taken.values()) >= self._of_all:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {self._of_one} files at once, {self._of_all} of all vehicles: come back later",
            )
        self._taken[vehicle] = self._taken.get(vehicle, 0) + 1
        try:
            yield
        finally:
            self._taken[vehicle] -= 1
            if not self._taken[vehicle]:
                del self._taken[vehicle]
