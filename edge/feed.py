"""A recorded drive as events for the loop, in the order of arrival."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from edge.campaigns.probe import ProbeSet
from edge.campaigns.wire import parse_set
from edge.drive import codec, topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import CampaignError, DriveFormatError
from edge.samples import NOT_FUSED, Event, Frame, RigMessage
from edge.streams import Stream
from edge.updates.in_use import MOST_BYTES, parse_in_use

_RIG: Final = frozenset({topics.CALIBRATION, topics.TRANSFORM})
_MOST_RIG_BYTES: Final = 64 << 10
# A thousand probes of some 300 bytes, with room; a full offer would have signatures too.
_MOST_CAMPAIGNS_BYTES: Final = 3 << 20
# Decisions of an earlier run are not what the sensors said.
NOT_SENSED: Final = frozenset({topics.DECISION, topics.DECISION_ANNOTATIONS})


class Fed(NamedTuple):
    """An event for the loop, and the message it was made of."""

    event: Event
    message: DriveMessage


def events(drive: DriveReader, streams: tuple[Stream, ...], start_ns: int | None = None) -> Iterator[Fed]:
    """The drive's messages as events, in order of arrival.

    Args:
        start_ns: first arrival instant wanted.

    Raises:
        DriveDamaged: after the last event before the damage.
    """
    rows = rows_of(streams)
    for message in drive.messages(start_ns=start_ns):
        if message.topic not in NOT_SENSED:
            yield Fed(event_of(message, rows), message)


def rows_of(streams: tuple[Stream, ...]) -> dict[str, int]:
    """Topic -> row of the stream table."""
    return {stream.topic: row for row, stream in enumerate(streams)}


def event_of(message: DriveMessage, rows: dict[str, int]) -> Event:
    """The event that a message is for the loop."""
    row = rows.get(message.topic, NOT_FUSED)
    sample: Any = None
    if row >= 0:
        sample = _sample(message, row)
    elif message.topic in _RIG and len(message.payload) <= _MOST_RIG_BYTES:
        sample = RigMessage(message.topic, message.payload)
    elif message.topic == topics.CAMPAIGNS and len(message.payload) <= _MOST_CAMPAIGNS_BYTES:
        sample = _probes(message)
    elif message.topic == topics.BUNDLE and len(message.payload) <= MOST_BYTES:
        sample = parse_in_use(message.payload)
    return Event(message.arrival_ns, row, sample, len(message.payload))


def _probes(message: DriveMessage) -> ProbeSet | None:
    """What campaigns look for; None where it can't be decoded: the loop goes on with what it has."""
    try:
        return parse_set(message.payload)
    except CampaignError:
        return None


def _sample(message: DriveMessage, row: int) -> Any:
    """The sample; None where its content can't be decoded. A frame keeps its place even without its picture."""
    try:
        return codec.decode(message.topic, message.payload, message.sequence)
    except DriveFormatError:
        return Frame(message.capture_ns, message.sequence, None) if row == 0 else None
