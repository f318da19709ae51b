"""What every importer hands over: streams of events in arrival order, and the names of what it left out.

One clock per recording, int ns. A source that does not say when a sample arrived gives arrival = capture (sound: the
end of its block) and says so in `Recording.metadata["arrival"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from edge.errors import SourceError
from edge.samples import AudioChunk, Sample

NS_PER_S = 1_000_000_000
# A stamp from here on (year 2116) is a damaged source, not a clock.
MAX_STAMP_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class Event:
    """One sample, or one ready message of a topic that has no sample class, and when it arrived."""

    topic: str
    arrival_ns: int
    capture_ns: int
    content: Sample | Message


class Skipped:
    """What an importer could not map, by name: whole streams, and counted messages of streams that it did map."""

    def __init__(self) -> None:
        self._streams: list[tuple[str, str]] = []
        self._counts: dict[tuple[str, str], int] = {}

    def stream(self, name: str, reason: str) -> None:
        """A whole stream is left out."""
        self._streams.append((name, reason))

    def count(self, name: str, reason: str, messages: int = 1) -> None:
        """Some messages of a stream are left out, for one reason."""
        if messages:
            self._counts[name, reason] = self._counts.get((name, reason), 0) + messages

    def entries(self) -> list[dict[str, str]]:
        """Name and reason of each, streams first."""
        counted = [
            {"name": name, "reason": f"{count} messages: {reason}"} for (name, reason), count in self._counts.items()
        ]
        return [{"name": name, "reason": reason} for name, reason in self._streams] + counted


@dataclass(slots=True)
class Recording:
    """An opened source.

    streams: each in arrival order; read lazily, so that pictures never pile up.
    skipped: grows while the streams are read.
    """

    format: str
    streams: list[Iterable[Event]]
    skipped: Skipped
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller adds to a source.

    Attributes:
        grey: pictures may come as (height, width) grey where that is cheaper, for who only looks at how they change.
    """

    dbc: tuple[Path, ...] = ()
    grey: bool = False


def events(topic: str, samples: Iterable[Sample]) -> Iterator[Event]:
    """Samples whose source knows no arrival: capture, or the end of the block for sound."""
    for sample in samples:
        arrival_ns = sample.stamp_ns
        if isinstance(sample, AudioChunk):
            arrival_ns += len(sample.pcm) * NS_PER_S // sample.rate_hz
        yield Event(topic, arrival_ns, sample.stamp_ns, sample)


def seconds_to_ns(seconds: float) -> int:
    """The nearest ns; exact enough for boot clocks of years.

    Raises:
        SourceError: no clock shows that.
    """
    if not -MAX_STAMP_NS < seconds * NS_PER_S < MAX_STAMP_NS:  # also false for NaN
        raise SourceError(f"expected a time stamp in seconds, got {seconds}")
    return round(seconds * NS_PER_S)
