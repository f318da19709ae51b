"""What is in an MCAP file: its channels, its facts and where its messages lie.

A finished file says so itself, in its summary; that is believed if it does not contradict itself. Any other file (a
writer was killed, bytes are missing, the summary leaves something out) is walked through record by record.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, Header, Metadata, MetadataIndex, Schema, Statistics

from edge.drive.chunks import MAX_RECORD_BYTES, McapBytes, split_records
from edge.drive.journal import LIBRARY, MAGIC, RECORD_HEADER_BYTES
from edge.errors import DriveDamaged

MESSAGE_HEAD: Final = struct.Struct("<HIQQ")  # channel, sequence, arrival (log_time), capture (publish_time)
# Schemas, channels and facts of one file together; a drive's take 100 KB.
MAX_DEFINITION_BYTES: Final = 64 << 20
# Messages outside chunks are read in stretches of about this size.
STRETCH_BYTES: Final = 1 << 20
# Chunks and stretches together, 200 bytes each: a recorder makes some a second, or one a megabyte.
MAX_PLACES: Final = 1 << 20
# A file with more is not damaged here and there but not a drive.
MAX_DAMAGES: Final = 1000
_FOOTER_BYTES: Final = RECORD_HEADER_BYTES + 20
_MALFORMED: Final = (McapError, struct.error, UnicodeDecodeError)


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
class Place:
    """A chunk, or a stretch of messages outside chunks (`length` bytes), with its arrival instants by its own words."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    is_chunk: bool = True


class Contents:
    """Channels, facts and places of one file.

    Attributes:
        damages: what was found damaged on the way, by offset.
    """

    def __init__(self) -> None:
        self.library = ""
        self.complete = False
        self.channels: dict[int, DriveChannel] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.places: list[Place] = []
        self.damages: list[DriveDamaged] = []
        self._schemas: dict[int, Schema] = {}
        self._unlinked: dict[int, Channel] = {}
        self._held_bytes = 0

    def define(self, opcode: int, body: bytes) -> None:
        """Take a header, schema, channel or metadata record.

        Raises:
            McapError, struct.error, UnicodeDecodeError: it is malformed, or contradicts an earlier one.
        """
        stream = _stream(body)
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            if self._is_new(f"schema {schema.id}", self._schemas.get(schema.id), schema, len(body)):
                self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            if self._is_new(f"channel {channel.id}", self._unlinked.get(channel.id), channel, len(body)):
                self._unlinked[channel.id] = channel
        elif opcode == Opcode.METADATA:
            record = Metadata.read(stream)
            self._hold(len(body))
            self.metadata.setdefault(record.name, {}).update(record.metadata)
        elif opcode == Opcode.HEADER:
            self.library = Header.read(stream).library

    def add(self, place: Place) -> None:
        """Take a chunk, or the beginning of a stretch.

        Raises:
            McapError: there are more of them than a drive has.
        """
        if len(self.places) >= MAX_PLACES:
            raise McapError(f"more than {MAX_PLACES} chunks or stretches of messages")
        self.places.append(place)

    def link(self) -> None:
        """Give each channel its schema, now that all are known."""
        for channel in self._unlinked.values():
            schema = self._schemas.get(channel.schema_id) or Schema(0, b"", "", "")
            self.channels[channel.id] = DriveChannel(
                channel.id, channel.topic, channel.message_encoding, schema.name, schema.encoding, schema.data
            )

    def _is_new(self, what: str, known: Schema | Channel | None, record: Schema | Channel, size: int) -> bool:
        if known is None:
            self._hold(size)
        elif known != record:
            raise McapError(f"another {what} than before")
        return known is None

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        if self._held_bytes > MAX_DEFINITION_BYTES:
            raise McapError(f"more than {MAX_DEFINITION_BYTES >> 20} MiB of schemas, channels and metadata")


def read_contents(file: McapBytes) -> Contents:
    """What is in the file, from its summary where that holds together, else from its records."""
    try:
        contents, wrong = _from_summary(file), None
    except DriveDamaged as damage:
        contents, wrong = None, damage
    if contents is None:
        contents = _from_records(file)
        if wrong is not None and not contents.damages:
            contents.damages.append(wrong)
    contents.link()
    return contents


def _from_summary(file: McapBytes) -> Contents | None:
    """The contents by the summary; None where there is none, or it leaves something out (the format allows that).

    Raises:
        DriveDamaged: the summary contradicts itself.
    """
    footer_at = file.size - _FOOTER_BYTES - len(MAGIC)
    raw = file.read(footer_at, _FOOTER_BYTES + len(MAGIC)) if footer_at >= len(MAGIC) else b""
    if raw[:RECORD_HEADER_BYTES] != struct.pack("<BQ", Opcode.FOOTER, 20) or raw[_FOOTER_BYTES:] != MAGIC:
        return None
    footer = Footer.read(_stream(raw[RECORD_HEADER_BYTES:_FOOTER_BYTES]))
    start = footer.summary_start
    if start == 0:
        return None
    if not len(MAGIC) < start <= footer_at or footer_at - start > MAX_RECORD_BYTES:
        raise file.damaged(footer_at, f"expected a summary before this footer, got its start at {start}")
    section = file.read(start, footer_at - start)
    crc = zlib.crc32(section + raw[: RECORD_HEADER_BYTES + 16])
    if footer.summary_crc not in (0, crc):
        raise file.damaged(start, f"expected summary CRC {footer.summary_crc:#010x}, got {crc:#010x}")
    try:
        return _from_section(file, section, start)
    except (DriveDamaged, *_MALFORMED) as error:
        raise file.damaged(start, f"expected a summary that holds, got {_said(error)}") from None


def _from_section(file: McapBytes, section: bytes, start: int) -> Contents | None:
    contents = Contents()
    contents.complete = True
    contents.define(Opcode.HEADER, file.read_record(len(MAGIC), Opcode.HEADER))
    statistics = None
    facts: list[tuple[int, int]] = []
    for opcode, at, size in split_records(section):
        body = section[at : at + size]
        if opcode == Opcode.CHUNK_INDEX:
            chunk = ChunkIndex.read(_stream(body))
            contents.add(
                Place(chunk.chunk_start_offset, chunk.chunk_length, chunk.message_start_time, chunk.message_end_time)
            )
        elif opcode == Opcode.METADATA_INDEX:
            index = MetadataIndex.read(_stream(body))
            facts.append((index.offset, index.length))
        elif opcode == Opcode.STATISTICS:
            statistics = Statistics.read(_stream(body))
        else:
            contents.define(opcode, body)
    if statistics is None or not contents.places:
        return None  # no index, or one of nothing: messages may stand outside chunks
    stated = statistics.chunk_count, statistics.channel_count, statistics.metadata_count
    if stated != (len(contents.places), len(contents._unlinked), len(facts)):
        return None
    _require_apart([*facts, *((place.offset, place.length) for place in contents.places)], start)
    for offset, length in facts:
        contents.define(Opcode.METADATA, file.read_record(offset, Opcode.METADATA, length))
    return contents


def _require_apart(records: list[tuple[int, int]], end: int) -> None:
    """Refuse an index whose records overlap or lie outside the data: reading it could take for ever."""
    before = len(MAGIC)
    for offset, length in sorted(records):
        if offset < before or length < RECORD_HEADER_BYTES or offset + length > end:
            raise McapError(f"an indexed record at {offset}+{length}, outside of {before}..{end}")
        before = offset + length


def _from_records(file: McapBytes) -> Contents:
    """Walk the records from the start, as far as they hold together."""
    contents = Contents()
    at = len(MAGIC)
    while len(contents.damages) < MAX_DAMAGES:
        try:
            opcode, length = file.record_head(at)
            body = at + RECORD_HEADER_BYTES
            if opcode == Opcode.FOOTER:
                contents.complete = _is_finished(file, at, contents.library)
                return contents
        except DriveDamaged as damage:
            contents.damages.append(damage)  # where the next record starts, nobody knows
            return contents
        try:
            _take(contents, file, opcode, at, length)
        except _MALFORMED as error:
            contents.damages.append(file.damaged(at, f"expected a whole record, got {_said(error)}"))
        except DriveDamaged as damage:
            contents.damages.append(damage)
        at = body + length
    return contents


def _is_finished(file: McapBytes, at: int, library: str) -> bool:
    """Whether the writer wrote the footer at `at` last; our own stands there from the start, without a summary."""
    body = file.read_record(at, Opcode.FOOTER)
    end = at + RECORD_HEADER_BYTES + len(body)
    if len(body) < 20:
        raise file.damaged(at, f"expected a footer of 20 bytes, got {len(body)}")
    if file.read(end, len(MAGIC)) != MAGIC:
        raise file.damaged(end, "expected the closing magic, got other bytes")
    return library != LIBRARY or body[:8] != bytes(8)


def _take(contents: Contents, file: McapBytes, opcode: int, at: int, length: int) -> None:
    body = at + RECORD_HEADER_BYTES
    if opcode == Opcode.CHUNK:
        contents.add(Place(at, RECORD_HEADER_BYTES + length, *file.chunk_span_ns(at, length)))
        if contents.library != LIBRARY:  # other writers define their channels inside the chunks
            with suppress(DriveDamaged, *_MALFORMED):  # whoever reads the chunk learns of it
                _take_definitions(contents, file.read_chunk(at))
    elif opcode == Opcode.MESSAGE:
        file.check_size(at, length)
        _, _, arrival_ns, _ = MESSAGE_HEAD.unpack(file.peek(body, min(length, MESSAGE_HEAD.size)))
        _take_message(contents, at, RECORD_HEADER_BYTES + length, arrival_ns)
    elif opcode in (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA):
        contents.define(opcode, file.read_record(at, opcode))


def _take_definitions(contents: Contents, records: bytes) -> None:
    for opcode, at, length in split_records(records):
        if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
            contents.define(opcode, records[at : at + length])


def _take_message(contents: Contents, at: int, length: int, arrival_ns: int) -> None:
    """A stretch goes on over records of other kinds, which its reader steps over, but not over damage."""
    last = contents.places[-1] if contents.places else None
    damaged_at = contents.damages[-1].offset if contents.damages else 0
    if last is None or last.is_chunk or damaged_at > last.offset or at + length - last.offset > STRETCH_BYTES:
        contents.add(Place(at, length, arrival_ns, arrival_ns, is_chunk=False))
    else:
        first_ns, last_ns = min(last.start_ns, arrival_ns), max(last.end_ns, arrival_ns)
        contents.places[-1] = Place(last.offset, at + length - last.offset, first_ns, last_ns, is_chunk=False)


def _said(error: Exception) -> str:
    if isinstance(error, EndOfFile):
        return "its end too early"
    return str(error).rsplit(": ", 1)[-1] if isinstance(error, DriveDamaged) else str(error)


class _ExactBytes(BytesIO):
    """Bytes that never give fewer than asked for."""

    def read(self, size: int | None = -1) -> bytes:
        got = super().read(size)
        if size is not None and len(got) < size:
            raise EndOfFile
        return got


def _stream(body: bytes) -> ReadDataStream:
    return ReadDataStream(_ExactBytes(body))
