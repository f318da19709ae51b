"""What time it is, for campaigns that end: the cloud's word first, and no way back.

A vehicle's wall clock may be wrong and may be set back. The cloud says its own with each answer; from then on a clock
that never goes back counts. Without its word the wall clock holds, but never before the last instant that was written
down: setting it back brings no campaign back to life.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edge.uplink.outbox import Outbox

_FACT: Final = "latest"
_STEP_NS: Final = 60_000_000_000  # so often it is written down


class Clock:
    """UTC in ns.

    Args:
        outbox: where the latest instant is kept.
        wall: of the vehicle; may jump.
        monotonic: ns; does not.
    """

    def __init__(
        self, outbox: Outbox, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._outbox, self._wall, self._monotonic = outbox, wall, monotonic
        row = outbox.execute("SELECT value FROM fact WHERE name = ?", (_FACT,)).fetchone()
        self._written_ns = self._latest_ns = 0 if row is None else int(row[0])
        self._ahead_ns: int | None = None  # of the monotonic clock, by the cloud's word

    def now_ns(self) -> int:
        """Now."""
        if self._ahead_ns is not None:
            self._latest_ns = self._monotonic() + self._ahead_ns
        else:
            self._latest_ns = max(self._wall(), self._latest_ns)
        if self._latest_ns - self._written_ns >= _STEP_NS:
            self._write()
        return self._latest_ns

    def heard(self, cloud_ns: int) -> None:
        """The cloud said what time it is. It may correct what a wrong wall clock said, forward or back."""
        self._ahead_ns = cloud_ns - self._monotonic()
        self._latest_ns = cloud_ns
        if abs(cloud_ns - self._written_ns) >= _STEP_NS:
            self._write()

    def _write(self) -> None:
        with suppress(OSError), self._outbox.transaction():  # a full disk: it is written when there is room
            self._outbox.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (_FACT, self._latest_ns))
            self._written_ns = self._latest_ns
