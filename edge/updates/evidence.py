"""How bundles fare on this vehicle, in counts that only grow: lost or repeated words about them do no harm.

Slices are parts of the world by the active bundle's own scene tags, so that both sides of a pair count in the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from roadfuse.v1 import updates_pb2

ALL: Final = "all"
# Scene tags that make slices beside ALL; the largest vehicles' drives have enough of each.
SLICES: Final = ("night", "rain", "tunnel", "town", "highway")
# What a bundle does wrong by itself, whatever the truth is.
FAILURES: Final = ("put_back", "engine_error", "not_finite", "frozen", "late", "silent")
# Of a pair on the same frame: the staged bundle is the one that is wrong, or the active one, or both say the same.
WORSE: Final = "worse"
BETTER: Final = "better"
SAME: Final = "same"
# A pair differs; who is right is judged later, by the cloud.
DIFFERS: Final = "differs"


@dataclass(slots=True)
class Count:
    """Of one bundle in one role, within one slice."""

    seconds: float = 0.0
    frames: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metric: str, times: int = 1) -> None:
        """Count something that happened."""
        self.counts[metric] = self.counts.get(metric, 0) + times


@dataclass(slots=True)
class Evidence:
    """Of one bundle in one role.

    Attributes:
        account: names it: with another name all counts begin anew.
    """

    bundle: str
    is_shadow: bool
    account: bytes
    slices: dict[str, Count] = field(default_factory=dict)

    def of(self, name: str) -> Count:
        """A slice's counts, made where there are none."""
        count = self.slices.get(name)
        if count is None:
            count = self.slices[name] = Count()
        return count

    def message(self) -> updates_pb2.Evidence:
        """As it travels."""
        told = updates_pb2.Evidence(bundle_id=self.bundle, is_shadow=self.is_shadow, account=self.account)
        for name, count in sorted(self.slices.items()):
            tally = told.tallies.add(slice=name, seconds=count.seconds, frames=count.frames)
            tally.counts.update(count.counts)
        return told


def messages(told: Iterable[str]) -> list[updates_pb2.Evidence]:
    """Evidence as an answer holds it, serialised and hexadecimal; without what can't be read."""
    found = []
    for one in told:
        with suppress(DecodeError, ValueError):
            found.append(updates_pb2.Evidence.FromString(bytes.fromhex(one)))
    return found


def parsed(messages: Iterable[updates_pb2.Evidence]) -> list[Evidence]:
    """Evidence as it was told."""
    return [
        Evidence(
            one.bundle_id, one.is_shadow, one.account,
            {tally.slice: Count(tally.seconds, tally.frames, dict(tally.counts)) for tally in one.tallies},
        )
        for one in messages
    ]  # fmt: skip
