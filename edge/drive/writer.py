"""Writes a drive: an MCAP file of zstd chunks that loses at most a second to `kill -9` and stays readable.

log_time is the arrival instant, publish_time the capture instant, both ns on the vehicle's monotonic clock; sequence is
the stream's own counter. A chunk is closed after half a second of arrivals or a megabyte, whichever comes first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import zstandard
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from edge.drive import codec, topics
from edge.drive.chunks import MAX_RECORD_BYTES
from edge.drive.journal import RECORD_HEADER_BYTES, Journal
from edge.drive.messages import DriveMessage
from edge.samples import Sample

CHUNK_BYTES: Final = 1 << 20
CHUNK_NS: Final = 500_000_000
# Half of what a reader takes as a record: a chunk holds one message at least, and incompressible ones grow.
MAX_PAYLOAD_BYTES: Final = MAX_RECORD_BYTES // 2
DRIVE_METADATA: Final = "roadfuse.drive"
_MESSAGE = struct.Struct("<BQHIQQ")
_MESSAGE_FIELDS_BYTES = 22
_END_OF_TIME_NS = 1 << 63


class DriveWriter:
    """Writes one drive; use it in a `with` block.

    An exception inside the block leaves the file unfinished but readable, as a kill would.

    Args:
        path: the file; replaced if it exists, by one of the same mode.
        metadata: facts about the drive (source, clocks), into the metadata record `roadfuse.drive`.
        durable: wait for the disk at each chunk (scenes in the spool; a power cut loses no more than a kill).

    Raises:
        BlockingIOError: another writer is at this file.
        OSError: the file can't be created here.
    """

    def __init__(self, path: Path | str, metadata: Mapping[str, str] | None = None, *, durable: bool = False) -> None:
        self.path = Path(path)
        self._journal = Journal(self.path, durable=durable)
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._closed = False
        self._channels: dict[str, Channel] = {}
        self._schemas: dict[str, Schema] = {}
        self._message_counts: dict[int, int] = {}
        self._chunk_indexes: list[ChunkIndex] = []
        self._metadata_indexes: list[MetadataIndex] = []
        self._chunk_start_ns: int = 0
        self._chunk_end_ns: int = 0
        self._start_chunk()
        self.add_metadata(DRIVE_METADATA, metadata or {})

    def write(self, topic: str, sample: Sample, *, arrival_ns: int) -> None:
        """Write a sample, encoded by its type's schema."""
        message = codec.encode(sample)
        self.write_message(topic, message, capture_ns=sample.stamp_ns, arrival_ns=arrival_ns, sequence=sample.seq)

    def write_message(self, topic: str, message: Message, *, capture_ns: int, arrival_ns: int, sequence: int) -> None:
        """Write a protobuf message of the topic's schema."""
        if type(message) is not topics.SCHEMAS.get(topic):
            raise ValueError(f"{topic}: expected a message of this topic's schema, got {message.DESCRIPTOR.full_name}")
        payload = message.SerializeToString(deterministic=True)
        self.write_payload(topic, payload, capture_ns=capture_ns, arrival_ns=arrival_ns, sequence=sequence)

    def write_payload(self, topic: str, payload: bytes, *, capture_ns: int, arrival_ns: int, sequence: int) -> None:
        """Write a message that is serialised already.

        Raises:
            ValueError: no such topic, an instant outside 0..2^63-1, or a payload that no reader would take.
            OSError: the disk refused; what was flushed before stands, this message is not in the file.
        """
        instants_fit = 0 <= arrival_ns < _END_OF_TIME_NS and 0 <= capture_ns < _END_OF_TIME_NS
        if not instants_fit or len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"{topic}: expected instants from 0 to 2^63-1 and at most {MAX_PAYLOAD_BYTES} bytes, "
                f"got arrival {arrival_ns}, capture {capture_ns}, {len(payload)} bytes"
            )
        channel = self._channels.get(topic) or self._register(topic)
        header = _MESSAGE.pack(
            Opcode.MESSAGE,
            _MESSAGE_FIELDS_BYTES + len(payload),
            channel.id,
            sequence & 0xFFFFFFFF,
            arrival_ns,
            capture_ns,
        )
        start_ns, end_ns = min(self._chunk_start_ns, arrival_ns), max(self._chunk_end_ns, arrival_ns)
        if self._chunk and (self._chunk_bytes + len(payload) > CHUNK_BYTES or end_ns - start_ns >= CHUNK_NS):
            self.flush()
        if not self._chunk:
            start_ns = end_ns = arrival_ns
        self._chunk_start_ns, self._chunk_end_ns = start_ns, end_ns
        self._chunk_index.setdefault(channel.id, []).append((arrival_ns, self._chunk_bytes))
        self._chunk += (header, payload)
        self._chunk_bytes += len(header) + len(payload)

    def copy(self, message: DriveMessage) -> None:
        """Write a message as another drive has it, or is to have it; raises what `write_payload` does."""
        self.write_payload(
            message.topic,
            message.payload,
            capture_ns=message.capture_ns,
            arrival_ns=message.arrival_ns,
            sequence=message.sequence,
        )

    def add_metadata(self, name: str, metadata: Mapping[str, str]) -> None:
        """Write a named record of facts."""
        builder = RecordBuilder()
        Metadata(name=name, metadata=dict(metadata)).write(builder)
        record = builder.end()
        index = MetadataIndex(self._journal.position, len(record), name)
        self._journal.append(record)
        self._metadata_indexes.append(index)

    def flush(self) -> None:
        """Close the chunk, so that all that was written so far survives a kill.

        Writing does this by itself as arrivals go on; a recorder whose streams all fall silent does it by its clock.

        Raises:
            OSError: the disk refused; the chunk is kept, and flushing may be tried again.
        """
        if not self._chunk:
            return
        records = b"".join(self._chunk)
        data = self._compressor.compress(records)
        builder = RecordBuilder()
        builder.start_record(Opcode.CHUNK)
        builder.write(struct.pack("<QQQI", self._chunk_start_ns, self._chunk_end_ns, len(records), zlib.crc32(records)))
        builder.write_prefixed_string("zstd")
        builder.write8(len(data))
        builder.write(data)
        builder.finish_record()
        chunk_length = builder.count
        start = self._journal.position
        offsets = {}
        for channel, entries in sorted(self._chunk_index.items()):
            offsets[channel] = start + builder.count
            _write_message_index(builder, channel, entries)
        index = ChunkIndex(
            chunk_length=chunk_length,
            chunk_start_offset=start,
            compression="zstd",
            compressed_size=len(data),
            message_end_time=self._chunk_end_ns,
            message_index_length=builder.count - chunk_length,
            message_index_offsets=offsets,
            message_start_time=self._chunk_start_ns,
            uncompressed_size=len(records),
        )
        self._journal.append(builder.end())
        self._chunk_indexes.append(index)
        for channel, entries in self._chunk_index.items():
            self._message_counts[channel] = self._message_counts.get(channel, 0) + len(entries)
        self._start_chunk()

    def close(self) -> None:
        """Write the summary and finish the file; a second time, nothing happens.

        Raises:
            OSError: the disk refused; the file stays as a kill would leave it.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            start = self._journal.position + RECORD_HEADER_BYTES + 4  # behind DataEnd
            summary, offset_start = self._summary(start)
            crc = zlib.crc32(summary + struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offset_start))
            self._journal.close(summary, offset_start, crc)
        finally:
            self._journal.abandon()

    def leave(self) -> None:
        """Let go of the file as a kill would leave it, with all that was written so far.

        Raises:
            OSError: the disk refused; what was flushed before stands.
        """
        try:
            self.flush()
        finally:
            self._closed = True
            self._journal.abandon()

    def __enter__(self) -> DriveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._journal.abandon()

    def _register(self, topic: str) -> Channel:
        if topic not in topics.SCHEMAS:
            raise ValueError(f"expected one of the topics {', '.join(topics.SCHEMAS)}, got {topic!r}")
        descriptor = topics.SCHEMAS[topic].DESCRIPTOR
        builder = RecordBuilder()
        schema = self._schemas.get(descriptor.full_name)
        if schema is None:
            files = _file_descriptor_set(descriptor.file)
            schema = Schema(id=len(self._schemas) + 1, name=descriptor.full_name, encoding="protobuf", data=files)
            schema.write(builder)
        channel = Channel(len(self._channels) + 1, topic, "protobuf", {}, schema.id)
        channel.write(builder)
        self._journal.append(builder.end())
        self._schemas[schema.name] = schema
        self._channels[topic] = channel
        return channel

    def _start_chunk(self) -> None:
        self._chunk: list[bytes] = []
        self._chunk_bytes = 0
        self._chunk_index: dict[int, list[tuple[int, int]]] = {}
        self._chunk_start_ns = self._chunk_end_ns = 0

    def _statistics(self) -> Statistics:
        chunks = self._chunk_indexes
        return Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=dict(sorted(self._message_counts.items())),
            chunk_count=len(chunks),
            message_count=sum(self._message_counts.values()),
            message_end_time=max((chunk.message_end_time for chunk in chunks), default=0),
            message_start_time=min((chunk.message_start_time for chunk in chunks), default=0),
            metadata_count=len(self._metadata_indexes),
            schema_count=len(self._schemas),
        )

    def _summary(self, start: int) -> tuple[bytes, int]:
        """The summary section that will stand at `start`, and the offset of its offsets."""
        groups: tuple[tuple[Opcode, Sequence[McapRecord]], ...] = (
            (Opcode.SCHEMA, list(self._schemas.values())),
            (Opcode.CHANNEL, list(self._channels.values())),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.CHUNK_INDEX, self._chunk_indexes),
            (Opcode.METADATA_INDEX, self._metadata_indexes),
        )
        section, offsets = RecordBuilder(), RecordBuilder()
        for opcode, records in groups:
            group_start = section.count
            for record in records:
                record.write(section)
            if records:
                SummaryOffset(opcode, start + group_start, section.count - group_start).write(offsets)
        offset_start = start + section.count
        return section.end() + offsets.end(), offset_start


def _write_message_index(builder: RecordBuilder, channel: int, entries: list[tuple[int, int]]) -> None:
    flat = [value for entry in sorted(entries) for value in entry]
    builder.start_record(Opcode.MESSAGE_INDEX)
    builder.write(struct.pack(f"<HI{len(flat)}Q", channel, 8 * len(flat), *flat))
    builder.finish_record()


def _file_descriptor_set(file: Any) -> bytes:
    """The schema's file and all it imports, dependencies first, as MCAP wants it."""
    files: dict[str, Any] = {}

    def add(descriptor: Any) -> None:
        if descriptor.name not in files:
            for dependency in descriptor.dependencies:
                add(dependency)
            files[descriptor.name] = descriptor

    add(file)
    result = FileDescriptorSet()
    for descriptor in files.values():
        descriptor.CopyToProto(result.file.add())
    return result.SerializeToString(deterministic=True)
