"""The messages of a drive and their order: by arrival instant, then sequence number, then channel.

Each chunk's messages come as a sorted run; what lies before the next chunk's start leaves. Stretches of a run leave as
one slice, so that runs which hardly overlap cost nothing, and a million runs that all overlap cost a heap's logarithm.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Any, Final, NamedTuple

# What a message takes in memory beside its payload.
_MESSAGE_BYTES: Final = 256


class DriveMessage(NamedTuple):
    """One recorded message; instants in ns on the vehicle's monotonic clock, payload as serialised.

    The order of the fields is the order of messages.
    """

    arrival_ns: int
    sequence: int
    channel: int
    capture_ns: int
    topic: str
    payload: bytes


class Merge:
    """A heap of sorted runs.

    Attributes:
        held_bytes: about what the runs take in memory.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[DriveMessage, int, int, list[DriveMessage], int]] = []  # head, number, at, run, bytes
        self._count = 0
        self.held_bytes = 0

    def add(self, run: list[DriveMessage]) -> None:
        """Take a sorted run."""
        if run:
            size = run_bytes(run)
            heappush(self._runs, (run[0], self._count, 0, run, size))
            self._count += 1
            self.held_bytes += size

    def before(self, end_ns: int) -> Iterator[DriveMessage]:
        """Give up what arrived before `end_ns`, in order."""
        runs = self._runs
        while runs and runs[0][0].arrival_ns < end_ns:
            _, number, at, run, size = runs[0]
            limit: Any = min([(end_ns,), *(other[0] for other in runs[1:3])])  # the next smallest head is one of two
            cut = max(bisect_left(run, limit, at), at + 1)
            yield from run[at:cut]
            if cut < len(run):
                heapreplace(runs, (run[cut], number, cut, run, size))
            else:
                heappop(runs)
                self.held_bytes -= size


def run_bytes(run: list[DriveMessage]) -> int:
    """About what a run of messages takes in memory."""
    return sum(len(message.payload) for message in run) + _MESSAGE_BYTES * len(run)
