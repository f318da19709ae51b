"""Which sequence numbers of a stream have not come: first waited for, then merely remembered.

A source numbers its samples at capture, so a number that is skipped is a sample that is on its way or lost. While it
may still be on its way the stream's bound stays before it; after that the number is remembered, so that a straggler is
told from a re-delivery.
"""

from __future__ import annotations

from typing import Final

UNSEEN: Final = -1
# How many samples may overtake the very first one.
FIRST_SEQS: Final = 64


class Gap:
    """The skipped numbers of one stream.

    Args:
        remembered: how many of the numbers before the newest are told apart; older ones are of no use to anyone.

    Attributes:
        missing: waited for.
        from_ns: capture of the last sample before the oldest of them.
        until_ns: when they are lost for good.
    """

    __slots__ = ("_remembered", "from_ns", "lost", "missing", "until_ns")

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self.missing: set[int] = set()
        self.lost: set[int] = set()
        self.from_ns = 0
        self.until_ns = 0

    def open(self, first: int, after: int, from_ns: int, until_ns: int) -> None:
        """The numbers from `first` on were skipped when `after` came."""
        if not self.missing:
            self.from_ns, self.until_ns = from_ns, until_ns
        self.until_ns = max(self.until_ns, until_ns)
        self.missing.update(range(max(first, after - self._remembered), after))

    def close(self, newest: int) -> None:
        """Nobody waits any more; `newest` is the newest number."""
        self.lost |= self.missing
        self.missing.clear()
        if len(self.lost) > self._remembered:
            self.lost = {seq for seq in self.lost if seq > newest - self._remembered}

    def fill(self, seq: int) -> bool:
        """Whether this old number had not come yet; now it has."""
        for numbers in (self.missing, self.lost):
            if seq in numbers:
                numbers.discard(seq)
                return True
        return False

    def forget(self) -> None:
        """The source began to count anew."""
        self.missing.clear()
        self.lost.clear()
