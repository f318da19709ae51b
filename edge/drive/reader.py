"""Reads a drive: in arrival order, by time range, whatever the file's state.

Equal arrival instants are ordered by sequence number, then by channel, so that every reading of a file is the same.
A finished file is read through its index; one that a killed writer left, or that is cut short, is scanned record by
record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from mcap.opcode import Opcode

from edge.drive.chunks import McapBytes, split_records
from edge.drive.contents import MESSAGE_HEAD, DriveChannel, Place, read_contents
from edge.drive.journal import LIBRARY, MAGIC, RECORD_HEADER_BYTES
from edge.drive.messages import DriveMessage, Merge, run_bytes
from edge.errors import DriveDamaged, DriveFormatError

__all__ = ["DriveChannel", "DriveMessage", "DriveReader"]

# Chunks whose times overlap are held together; recorders overlap a few, hostile files all of them.
MAX_OVERLAP_BYTES: Final = 512 << 20
_AFTER_ALL_NS: Final = 1 << 64
_END_OF_TIME_NS: Final = 1 << 63  # instants lie before it


class DriveReader:
    """Reads one MCAP file; use it in a `with` block.

    Args:
        path: the file.
        on_damage: called with each damage found while reading, which then goes on behind it; None raises the first in
            the file instead, after all that stands before it was delivered.

    Raises:
        DriveFormatError: the file is empty or no MCAP.
        OSError: the file can't be opened or read.

    Attributes:
        on_damage: as given.
        channels: by id.
        metadata: named records of facts, merged where a name comes twice.
        complete: whether the writer finished the file.
        library: who wrote it.
        size_bytes: of the file.
    """

    def __init__(self, path: Path | str, on_damage: Callable[[DriveDamaged], None] | None = None) -> None:
        self.path = Path(path)
        self.on_damage = on_damage
        self._bytes = McapBytes(self.path)
        self.size_bytes = self._bytes.size
        try:
            magic = self._bytes.read(0, len(MAGIC))
            if magic != MAGIC:
                got = f"{magic!r}" if self.size_bytes else "an empty file"
                raise DriveFormatError(f"{self.path}: expected an MCAP file (it starts with {MAGIC!r}), got {got}")
            contents = read_contents(self._bytes)
        except BaseException:
            self.close()
            raise
        self.channels = contents.channels
        self.metadata = contents.metadata
        self.complete = contents.complete
        self.library = contents.library
        self._places = sorted(contents.places, key=lambda place: (place.start_ns, place.offset))
        self._damages = contents.damages

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()

    def __enter__(self) -> DriveReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def topics(self) -> set[str]:
        """Topics that have a channel."""
        return {channel.topic for channel in self.channels.values()}

    @property
    def chunk_count(self) -> int:
        """Chunks found."""
        return sum(place.is_chunk for place in self._places)

    def span_ns(self) -> tuple[int, int] | None:
        """First and last arrival instant, by the chunks' own words; None where there is no message."""
        # Other writers leave chunks without messages, which say 0 and 0.
        places = [place for place in self._places if place.end_ns or self.library == LIBRARY or not place.is_chunk]
        if not places:
            return None
        return min(place.start_ns for place in places), max(place.end_ns for place in places)

    def messages(
        self, topics: Iterable[str] | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[DriveMessage]:
        """Messages by arrival instant, then sequence number, then channel.

        Args:
            topics: only these; None for all.
            start_ns: first arrival instant wanted.
            end_ns: first arrival instant no longer wanted.

        Raises:
            DriveDamaged: after the last message before the damage (unless `on_damage` was given).
        """
        low = 0 if start_ns is None else start_ns
        high = _AFTER_ALL_NS if end_ns is None else end_ns
        unwanted = set() if topics is None else self._channels_without(set(topics))
        first = self._damages[0] if self._damages else None
        merge = Merge()
        for place in self._places:
            if place.start_ns >= high or place.end_ns < low:
                continue
            if self.on_damage is None and first is not None and place.offset >= first.offset:
                continue
            yield from merge.before(place.start_ns)
            run: list[DriveMessage] = []
            try:
                self._read(place, unwanted, low, high, run)
                if merge.held_bytes + run_bytes(run) > MAX_OVERLAP_BYTES:
                    run.clear()
                    limit = f"expected at most {MAX_OVERLAP_BYTES >> 20} MiB of chunks that overlap in time, got more"
                    raise self._bytes.damaged(place.offset, limit)
            except DriveDamaged as damage:
                if self.on_damage is None:
                    first = damage
                else:
                    self.on_damage(damage)
            run.sort()
            merge.add(run)
        yield from merge.before(_AFTER_ALL_NS)
        if self.on_damage is not None:
            for found in self._damages:
                self.on_damage(found)
        elif first is not None:
            raise first

    def _channels_without(self, topics: set[str]) -> set[int]:
        return {channel.id for channel in self.channels.values() if channel.topic not in topics}

    def _read(self, place: Place, unwanted: Collection[int], low: int, high: int, run: list[DriveMessage]) -> None:
        """Append the messages of one place to `run`, as far as they hold together."""
        if place.is_chunk:
            records = self._bytes.read_chunk(place.offset, place.length)
        else:
            records = self._bytes.read(place.offset, place.length)
        topics = {id: channel.topic for id, channel in self.channels.items()}
        unpack, head_bytes, message_opcode = MESSAGE_HEAD.unpack_from, MESSAGE_HEAD.size, int(Opcode.MESSAGE)
        start_ns, end_ns = place.start_ns, place.end_ns
        at = RECORD_HEADER_BYTES
        try:
            for opcode, at, length in split_records(records):
                if opcode != message_opcode:
                    continue
                if length < head_bytes:
                    raise struct.error(f"a message of {length} bytes")
                channel, sequence, arrival_ns, capture_ns = unpack(records, at)
                if not start_ns <= arrival_ns <= end_ns:
                    raise struct.error(f"arrival {arrival_ns} in a chunk of {start_ns}..{end_ns}")
                if arrival_ns | capture_ns >= _END_OF_TIME_NS:
                    raise struct.error(f"instants {arrival_ns} and {capture_ns}, of which one is no time")
                topic = topics.get(channel)
                if topic is None:
                    raise struct.error(f"a message of channel {channel}, which is defined nowhere")
                if low <= arrival_ns < high and channel not in unwanted:
                    payload = records[at + head_bytes : at + length]
                    run.append(DriveMessage(arrival_ns, sequence, channel, capture_ns, topic, payload))
        except struct.error as error:
            offset = place.offset if place.is_chunk else place.offset + at - RECORD_HEADER_BYTES
            raise self._bytes.damaged(offset, f"expected whole records, got {error}") from None
