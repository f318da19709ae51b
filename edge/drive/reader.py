"""Reads a drive: in arrival order, by time range, whatever the file's state.

Equal arrival instants are ordered by sequence number, then by channel, so that every reading of a file is the same.
A finished file is read through its index; one that a killed writer left, or that is cut short, is scanned record by
record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, Header, Metadata, Schema, Statistics

from edge.drive.chunks import MAX_RECORD_BYTES, RECORD_HEAD, McapBytes, split_records
from edge.drive.journal import LIBRARY, MAGIC, RECORD_HEADER_BYTES
from edge.errors import DriveDamaged, DriveFormatError

# Chunks whose times overlap are held together; recorders overlap a few, hostile files all of them.
MAX_OVERLAP_BYTES: Final = 1 << 30
_FOOTER_BYTES: Final = RECORD_HEADER_BYTES + 20 + len(MAGIC)
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_MALFORMED = (McapError, struct.error, UnicodeDecodeError)


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


@dataclass(frozen=True, slots=True)
class DriveChannel:
    """A channel of the file: its topic, its schema's name and encodings ("" where it has none)."""

    id: int
    topic: str
    message_encoding: str
    schema: str
    schema_encoding: str
    schema_data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Place:
    """A chunk, or one message outside chunks."""

    offset: int
    start_ns: int
    end_ns: int
    is_chunk: bool = True


class DriveReader:
    """Reads one MCAP file; use it in a `with` block.

    Args:
        path: the file.
        on_damage: called with each damage found while reading, which then goes on behind it; None raises instead,
            after all that stands before the damage was delivered.

    Raises:
        DriveFormatError: the file is empty or no MCAP.

    Attributes:
        channels: by id.
        metadata: named records of facts, merged where a name comes twice.
        complete: whether the writer finished the file.
        library: who wrote it.
        size_bytes: of the file.
        chunk_count: chunks in the file.
    """

    def __init__(self, path: Path | str, on_damage: Callable[[DriveDamaged], None] | None = None) -> None:
        self.path = Path(path)
        self._on_damage = on_damage
        self._bytes = McapBytes(self.path)
        self._reset()
        self.library = ""
        self.size_bytes = self._bytes.size
        self._damage: DriveDamaged | None = None  # where a scan had to stop
        try:
            magic = self._bytes.read(0, len(MAGIC))
            if magic != MAGIC:
                got = f"{magic!r}" if self.size_bytes else "an empty file"
                raise DriveFormatError(f"{self.path}: expected an MCAP file (it starts with {MAGIC!r}), got {got}")
            self.complete = self._read_summary()
            if not self.complete:
                self._reset()
                self._scan()
        except BaseException:
            self.close()
            raise

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
        if not self._places:
            return None
        return min(place.start_ns for place in self._places), max(place.end_ns for place in self._places)

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
        wanted = None if topics is None else frozenset(topics)
        low = 0 if start_ns is None else start_ns
        high = 1 << 64 if end_ns is None else end_ns
        pending: list[DriveMessage] = []  # sorted
        for place in sorted(self._places, key=lambda place: (place.start_ns, place.offset)):
            if place.start_ns >= high or place.end_ns < low:
                continue
            if pending and pending[0].arrival_ns < place.start_ns:
                ready = next(
                    (i for i, message in enumerate(pending) if message.arrival_ns >= place.start_ns), len(pending)
                )
                yield from pending[:ready]
                del pending[:ready]
            try:
                pending += [
                    message
                    for message in self._read_place(place)
                    if low <= message.arrival_ns < high and (wanted is None or message.topic in wanted)
                ]
                self._check_overlap(place, pending)
            except DriveDamaged as damage:
                if self._on_damage is None:
                    yield from pending
                    raise
                self._on_damage(damage)
            pending.sort()
        yield from pending
        if self._damage is not None:
            if self._on_damage is None:
                raise self._damage
            self._on_damage(self._damage)

    def _check_overlap(self, place: _Place, pending: list[DriveMessage]) -> None:
        if sum(len(message.payload) for message in pending) > MAX_OVERLAP_BYTES:
            raise self._bytes.damaged(
                place.offset, f"expected at most {MAX_OVERLAP_BYTES >> 20} MiB of chunks that overlap in time"
            )

    def _reset(self) -> None:
        self.channels: dict[int, DriveChannel] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self._schemas: dict[int, Schema] = {}
        self._places: list[_Place] = []

    def _read_summary(self) -> bool:
        """Take chunks, channels and metadata from the summary; False if there is none that holds together."""
        end = self.size_bytes - _FOOTER_BYTES
        raw = self._bytes.read(end, _FOOTER_BYTES) if end >= len(MAGIC) else b""
        if len(raw) < _FOOTER_BYTES or raw[-len(MAGIC) :] != MAGIC or raw[0] != Opcode.FOOTER:
            return False
        footer = Footer.read(ReadDataStream(BytesIO(raw[RECORD_HEADER_BYTES:])))
        length = end - footer.summary_start
        if not 0 < length <= MAX_RECORD_BYTES or footer.summary_start < len(MAGIC):
            return False
        section = self._bytes.read(footer.summary_start, length)
        crc = zlib.crc32(section + raw[: RECORD_HEADER_BYTES + 16])
        if footer.summary_crc not in (0, crc):
            return False
        chunk_count = -1
        try:
            self._define(Opcode.HEADER, self._bytes.read_record(len(MAGIC), Opcode.HEADER))
            for opcode, at, size in split_records(section):
                body = section[at : at + size]
                if opcode == Opcode.CHUNK_INDEX:
                    index = ChunkIndex.read(ReadDataStream(BytesIO(body)))
                    self._places.append(
                        _Place(index.chunk_start_offset, index.message_start_time, index.message_end_time)
                    )
                elif opcode == Opcode.METADATA_INDEX:
                    (offset,) = struct.unpack_from("<Q", body)
                    self._define(Opcode.METADATA, self._bytes.read_record(offset, Opcode.METADATA))
                elif opcode == Opcode.STATISTICS:
                    chunk_count = Statistics.read(ReadDataStream(BytesIO(body))).chunk_count
                else:
                    self._define(opcode, body)
        except (DriveDamaged, *_MALFORMED):
            return False
        return chunk_count == len(self._places) > 0  # else unchunked, empty, or an index that misses some: scan

    def _scan(self) -> None:
        """Walk the records from the start, as far as they hold together."""
        at = len(MAGIC)
        try:
            while True:
                head = self._bytes.read(at, RECORD_HEADER_BYTES)
                if len(head) < RECORD_HEADER_BYTES:
                    raise self._bytes.damaged(at, f"expected a record, got the end of the file ({len(head)} bytes)")
                opcode, length = RECORD_HEAD.unpack(head)
                body = at + RECORD_HEADER_BYTES
                if opcode == 0 or body + length > self.size_bytes:
                    raise self._bytes.damaged(
                        at, f"expected a record, got opcode {opcode}, {length} bytes of {self.size_bytes - body} left"
                    )
                if opcode == Opcode.FOOTER:
                    (summary_start,) = struct.unpack("<Q", self._bytes.read(body, 8))
                    self.complete = summary_start != 0
                    return
                self._scan_record(opcode, at, body, length)
                at = body + length
        except _MALFORMED as error:
            self._damage = self._bytes.damaged(at, f"expected a whole record, got {type(error).__name__} ({error})")
        except DriveDamaged as damage:
            self._damage = damage

    def _scan_record(self, opcode: int, at: int, body: int, length: int) -> None:
        if opcode == Opcode.CHUNK:
            self._places.append(_Place(at, *self._bytes.chunk_span_ns(at, body, length)))
            if self.library != LIBRARY:  # other writers define their channels inside the chunks
                for _ in self._read_place(self._places[-1]):
                    pass
        elif opcode == Opcode.MESSAGE:
            _, _, arrival_ns, _ = _MESSAGE_HEAD.unpack(self._bytes.read(body, _MESSAGE_HEAD.size))
            self._places.append(_Place(at, arrival_ns, arrival_ns, is_chunk=False))
        elif opcode in (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA):
            self._define(opcode, self._bytes.read(body, length))

    def _define(self, opcode: int, body: bytes) -> None:
        stream = ReadDataStream(BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            known = self._schemas.get(channel.schema_id)
            self.channels[channel.id] = DriveChannel(
                channel.id,
                channel.topic,
                channel.message_encoding,
                known.name if known else "",
                known.encoding if known else "",
                known.data if known else b"",
            )
        elif opcode == Opcode.METADATA:
            record = Metadata.read(stream)
            self.metadata.setdefault(record.name, {}).update(record.metadata)
        elif opcode == Opcode.HEADER:
            self.library = Header.read(stream).library

    def _read_place(self, place: _Place) -> Iterator[DriveMessage]:
        if place.is_chunk:
            yield from self._messages_in(place.offset, self._bytes.read_chunk(place.offset))
        else:
            body = self._bytes.read_record(place.offset, Opcode.MESSAGE)
            yield from self._messages_in(place.offset, RECORD_HEAD.pack(Opcode.MESSAGE, len(body)) + body)

    def _messages_in(self, offset: int, records: bytes) -> Iterator[DriveMessage]:
        channels, unpack, head_bytes = self.channels, _MESSAGE_HEAD.unpack_from, _MESSAGE_HEAD.size
        message_opcode = int(Opcode.MESSAGE)
        try:
            for opcode, at, length in split_records(records):
                if opcode == message_opcode:
                    if length < head_bytes:
                        raise struct.error(f"a message of {length} bytes")
                    channel, sequence, arrival_ns, capture_ns = unpack(records, at)
                    payload = records[at + head_bytes : at + length]
                    yield DriveMessage(arrival_ns, sequence, channel, capture_ns, channels[channel].topic, payload)
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._define(opcode, records[at : at + length])
        except KeyError as error:
            raise self._bytes.damaged(offset, f"expected a known channel, got {error}") from None
        except _MALFORMED as error:
            raise self._bytes.damaged(offset, f"expected whole records, got {error}") from None
