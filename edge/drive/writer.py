"""Writes a drive: an MCAP file of zstd chunks that loses at most a second to `kill -9` and stays readable.

log_time is the arrival instant, publish_time the capture instant, both ns on the vehicle's monotonic clock; sequence is
the stream's own counter. A chunk is closed after half a second of arrivals or a megabyte, whichever comes first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import zstandard
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Metadata, MetadataIndex, Schema, Statistics, SummaryOffset

from edge.drive import codec, topics
from edge.drive.journal import RECORD_HEADER_BYTES, Journal
from edge.samples import Sample

CHUNK_BYTES: Final = 1 << 20
CHUNK_NS: Final = 500_000_000
DRIVE_METADATA: Final = "roadfuse.drive"
_MESSAGE = struct.Struct("<BQHIQQ")
_MESSAGE_FIELDS_BYTES = 22


class DriveWriter:
    """Writes one drive; use it in a `with` block.

    An exception inside the block leaves the file unfinished but readable, as a kill would.

    Args:
        path: the file; replaced if it exists.
        metadata: facts about the drive (source, clocks), into the metadata record `roadfuse.drive`.
        durable: wait for the disk at each chunk (scenes in the spool; a power cut loses no more than a kill).
    """

    def __init__(self, path: Path | str, metadata: Mapping[str, str] | None = None, *, durable: bool = False) -> None:
        self.path = Path(path)
        self._journal = Journal(self.path, durable=durable)
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._repeated = RecordBuilder(), RecordBuilder()  # schemas and channels, once more for the summary
        self._chunk_indexes: list[ChunkIndex] = []
        self._metadata_indexes: list[MetadataIndex] = []
        self._statistics = Statistics(0, 0, {}, 0, 0, 0, 0, 0, 0)
        self._chunk_start_ns = self._chunk_end_ns = 0
        self._start_chunk()
        self.add_metadata(DRIVE_METADATA, metadata or {})

    def write(self, topic: str, sample: Sample, *, arrival_ns: int) -> None:
        """Write a sample, encoded by its type's schema."""
        self.write_payload(
            topic,
            codec.encode(sample).SerializeToString(deterministic=True),
            capture_ns=sample.stamp_ns,
            arrival_ns=arrival_ns,
            sequence=sample.seq,
        )

    def write_message(self, topic: str, message: Message, *, capture_ns: int, arrival_ns: int, sequence: int) -> None:
        """Write a protobuf message of the topic's schema."""
        payload = message.SerializeToString(deterministic=True)
        self.write_payload(topic, payload, capture_ns=capture_ns, arrival_ns=arrival_ns, sequence=sequence)

    def write_payload(self, topic: str, payload: bytes, *, capture_ns: int, arrival_ns: int, sequence: int) -> None:
        """Write a message that is serialised already."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._register(topic)
        if self._chunk and (
            self._chunk_bytes + len(payload) > CHUNK_BYTES or arrival_ns - self._chunk_start_ns >= CHUNK_NS
        ):
            self.flush()
        if not self._chunk:
            self._chunk_start_ns = self._chunk_end_ns = arrival_ns
        self._chunk_start_ns = min(self._chunk_start_ns, arrival_ns)
        self._chunk_end_ns = max(self._chunk_end_ns, arrival_ns)
        header = _MESSAGE.pack(
            Opcode.MESSAGE,
            _MESSAGE_FIELDS_BYTES + len(payload),
            channel,
            sequence & 0xFFFFFFFF,
            arrival_ns,
            capture_ns,
        )
        self._chunk_index.setdefault(channel, []).append((arrival_ns, self._chunk_bytes))
        self._chunk += (header, payload)
        self._chunk_bytes += len(header) + len(payload)

    def add_metadata(self, name: str, metadata: Mapping[str, str]) -> None:
        """Write a named record of facts."""
        builder = RecordBuilder()
        Metadata(name=name, metadata=dict(metadata)).write(builder)
        record = builder.end()
        self._metadata_indexes.append(MetadataIndex(self._journal.position, len(record), name))
        self._statistics.metadata_count += 1
        self._journal.append(record)

    def flush(self) -> None:
        """Close the chunk, so that all that was written so far survives a kill."""
        if not self._chunk:
            return
        records = b"".join(self._chunk)
        data = self._compressor.compress(records)
        builder = RecordBuilder()
        builder.start_record(Opcode.CHUNK)
        builder.write(struct.pack("<QQQI", self._chunk_start_ns, self._chunk_end_ns, len(records), zlib.crc32(records)))
        builder.write_prefixed_string("zstd")
        builder.write(struct.pack("<Q", len(data)))
        builder.write(data)
        builder.finish_record()
        chunk_length = builder.count
        start = self._journal.position
        offsets = {}
        for channel, entries in sorted(self._chunk_index.items()):
            offsets[channel] = start + builder.count
            _write_message_index(builder, channel, entries)
        self._chunk_indexes.append(
            ChunkIndex(
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
        )
        self._journal.append(builder.end())
        self._count_chunk()
        self._start_chunk()

    def close(self) -> None:
        """Write the summary and finish the file."""
        self.flush()
        data_end_bytes = RECORD_HEADER_BYTES + 4
        summary, offset_start = self._summary(self._journal.position + data_end_bytes)
        start = self._journal.position + data_end_bytes
        crc = zlib.crc32(summary + struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offset_start))
        self._journal.close(summary, offset_start, crc)

    def __enter__(self) -> DriveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._journal.abandon()

    def _register(self, topic: str) -> int:
        schema = topics.SCHEMAS[topic].DESCRIPTOR
        builder = RecordBuilder()
        schema_id = self._schemas.get(schema.full_name)
        if schema_id is None:
            schema_id = self._schemas[schema.full_name] = len(self._schemas) + 1
            record = Schema(
                id=schema_id, name=schema.full_name, encoding="protobuf", data=_file_descriptor_set(schema.file)
            )
            record.write(builder)
            record.write(self._repeated[0])
            self._statistics.schema_count += 1
        channel_id = self._channels[topic] = len(self._channels) + 1
        channel = Channel(id=channel_id, topic=topic, message_encoding="protobuf", metadata={}, schema_id=schema_id)
        channel.write(builder)
        channel.write(self._repeated[1])
        self._statistics.channel_count += 1
        self._journal.append(builder.end())
        return channel_id

    def _start_chunk(self) -> None:
        self._chunk: list[bytes] = []
        self._chunk_bytes = 0
        self._chunk_index: dict[int, list[tuple[int, int]]] = {}

    def _count_chunk(self) -> None:
        statistics = self._statistics
        if statistics.message_count == 0:
            statistics.message_start_time = self._chunk_start_ns
        statistics.message_start_time = min(statistics.message_start_time, self._chunk_start_ns)
        statistics.message_end_time = max(statistics.message_end_time, self._chunk_end_ns)
        statistics.chunk_count += 1
        for channel, entries in self._chunk_index.items():
            counts = statistics.channel_message_counts
            counts[channel] = counts.get(channel, 0) + len(entries)
            statistics.message_count += len(entries)

    def _summary(self, start: int) -> tuple[bytes, int]:
        """The summary section that will stand at `start`, and the offset of its offsets."""
        statistics, chunks, metadata = RecordBuilder(), RecordBuilder(), RecordBuilder()
        self._statistics.write(statistics)
        for chunk in self._chunk_indexes:
            chunk.write(chunks)
        for entry in self._metadata_indexes:
            entry.write(metadata)
        groups = (
            (Opcode.SCHEMA, self._repeated[0].end()),
            (Opcode.CHANNEL, self._repeated[1].end()),
            (Opcode.STATISTICS, statistics.end()),
            (Opcode.CHUNK_INDEX, chunks.end()),
            (Opcode.METADATA_INDEX, metadata.end()),
        )
        section, offsets = b"", RecordBuilder()
        for opcode, records in groups:
            if records:
                SummaryOffset(opcode, start + len(section), len(records)).write(offsets)
            section += records
        return section + offsets.end(), start + len(section)


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
