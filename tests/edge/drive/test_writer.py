"""A finished drive: deterministic, indexed, checked, and readable by those who have never heard of us."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import SeekingReader, make_reader
from mcap.records import Chunk, ChunkIndex, MessageIndex
from mcap.stream_reader import StreamReader

from edge.drive import codec, topics, writer
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.samples import AudioChunk, CanFrame, Frame, GnssFix, ImuSample, Sample, Sweep, VehicleState

SAMPLES: dict[str, Sample] = {
    topics.CAMERA: Frame(100, 1, np.full((16, 16, 3), 50, dtype=np.uint8)),
    topics.AUDIO: AudioChunk(100, 1, 16_000, np.arange(160, dtype=np.int16)),
    topics.IMU: ImuSample(100, 1, (0.1, 0.2, 9.8), (0.0, 0.0, 0.3)),
    topics.GNSS: GnssFix(100, 1, 48.0, 11.0, 500.0, (3.0, 4.0, 0.0)),
    topics.CAN: CanFrame(100, 1, 0, 0x1A0, b"12345678"),
    topics.VEHICLE: VehicleState(100, 1, 13.9, steering_wheel_angle_rad=0.1),
    topics.LIDAR: Sweep(100, 1, np.ones((5, 4), dtype=np.float32)),
}


def write_all_streams(path: Path) -> None:
    with DriveWriter(path, {"source": "test", "clock": "monotonic"}) as drive:
        for turn in range(30):
            for topic, sample in SAMPLES.items():
                drive.write(topic, sample, arrival_ns=1_000 + turn * 50_000_000)
        drive.add_metadata("roadfuse.run", {"bundle": "none"})


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write_all_streams(tmp_path / "a.mcap")
    write_all_streams(tmp_path / "b.mcap")
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()


def test_log_time_is_the_arrival_publish_time_the_capture_and_sequence_the_streams_own(tmp_path: Path) -> None:
    write_all_streams(tmp_path / "a.mcap")
    with (tmp_path / "a.mcap").open("rb") as file:
        _, _, message = next(iter(make_reader(file).iter_messages()))
    assert (message.log_time, message.publish_time, message.sequence) == (1_000, 100, 1)


def test_schemas_are_foxgloves_where_one_fits(tmp_path: Path) -> None:
    write_all_streams(tmp_path / "a.mcap")
    with DriveReader(tmp_path / "a.mcap") as drive:
        schemas = {channel.topic: channel.schema for channel in drive.channels.values()}
        encodings = {(channel.message_encoding, channel.schema_encoding) for channel in drive.channels.values()}
    assert schemas == {
        "/camera": "foxglove.CompressedImage",
        "/audio": "foxglove.RawAudio",
        "/imu": "roadfuse.v1.Imu",
        "/gnss": "foxglove.LocationFix",
        "/can": "roadfuse.v1.CanFrame",
        "/vehicle": "roadfuse.v1.VehicleState",
        "/lidar": "foxglove.PointCloud",
    }
    assert encodings == {("protobuf", "protobuf")}


def test_messages_decode_from_the_schemas_in_the_file_alone(tmp_path: Path) -> None:
    write_all_streams(tmp_path / "a.mcap")
    seen = set()
    with (tmp_path / "a.mcap").open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            pool = descriptor_pool.DescriptorPool()  # empty: knows nothing of foxglove, roadfuse or google.protobuf
            for descriptor in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                pool.Add(descriptor)
            kind: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
            decoded = kind.FromString(message.data)
            assert decoded.SerializeToString(deterministic=True) == message.data
            assert decoded.timestamp.nanos == 100
            seen.add(channel.topic)
            if seen == set(SAMPLES):
                return
    pytest.fail(f"only {seen}")


def test_every_topic_has_a_schema_that_can_be_written(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "a.mcap") as drive:
        for topic, schema in topics.SCHEMAS.items():
            drive.write_message(topic, schema(), capture_ns=0, arrival_ns=0, sequence=0)
    with DriveReader(tmp_path / "a.mcap") as read:
        assert {channel.topic: channel.schema for channel in read.channels.values()} == {
            topic: schema.DESCRIPTOR.full_name for topic, schema in topics.SCHEMAS.items()
        }


def test_the_summary_its_statistics_and_its_checksums_are_right(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    write_all_streams(path)
    content = path.read_bytes()
    with path.open("rb") as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
        assert summary is not None
        assert summary.statistics is not None
        messages = list(make_reader(file, validate_crcs=True).iter_messages())
    counts = Counter(channel.id for _, channel, _ in messages)
    statistics = summary.statistics
    assert statistics.message_count == len(messages) == 30 * len(SAMPLES)
    assert statistics.channel_message_counts == counts
    assert statistics.channel_count == statistics.schema_count == len(SAMPLES)
    assert statistics.chunk_count == len(summary.chunk_indexes) > 1
    assert statistics.metadata_count == len(summary.metadata_indexes) == 2
    assert statistics.attachment_count == 0
    assert statistics.message_start_time == min(message.log_time for _, _, message in messages)
    assert statistics.message_end_time == max(message.log_time for _, _, message in messages)
    start, offset_start, crc = struct.unpack("<QQI", content[-28:-8])
    assert zlib.crc32(content[start:-12]) == crc
    assert content[offset_start] == 0x0E  # a summary offset
    assert [record.name for record in make_reader(BytesIO(content)).iter_metadata()] == [
        "roadfuse.drive",
        "roadfuse.run",
    ]


def test_each_index_entry_points_at_its_record(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    write_all_streams(path)
    content = path.read_bytes()

    def records_at(offset: int) -> Any:
        stream = BytesIO(content)
        stream.seek(offset)
        return next(StreamReader(stream, skip_magic=True, emit_chunks=True).records)

    summary = make_reader(BytesIO(content)).get_summary()
    assert summary is not None
    for index in summary.chunk_indexes:
        chunk = records_at(index.chunk_start_offset)
        assert isinstance(chunk, Chunk)
        assert (chunk.message_start_time, chunk.message_end_time) == (index.message_start_time, index.message_end_time)
        assert (chunk.uncompressed_size, len(chunk.data)) == (index.uncompressed_size, index.compressed_size)
        (length,) = struct.unpack_from("<Q", content, index.chunk_start_offset + 1)
        assert index.chunk_length == 9 + length
        after = index.chunk_start_offset + index.chunk_length
        assert min(index.message_index_offsets.values()) == after
        for channel, offset in index.message_index_offsets.items():
            record = records_at(offset)
            assert isinstance(record, MessageIndex)
            assert record.channel_id == channel
            assert after <= offset < after + index.message_index_length
            assert record.records == sorted(record.records)
    assert all(
        isinstance(records_at(entry.offset), type(next(make_reader(BytesIO(content)).iter_metadata())))
        for entry in summary.metadata_indexes
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start_ns=st.integers(0, 2_100_000_000),
    length_ns=st.integers(0, 2_100_000_000),
    wanted=st.none() | st.sets(st.sampled_from(["/imu", "/can", "/gnss", "/no"])),
)
def test_time_and_topic_queries_of_the_stock_reader_equal_ours(
    start_ns: int, length_ns: int, wanted: set[str] | None, tmp_path: Path, write_small: Callable[..., None]
) -> None:
    path = tmp_path / "a.mcap"
    if not path.exists():
        write_small(path)
    with path.open("rb") as file, DriveReader(path) as drive:
        assert drive.complete
        stock = SeekingReader(file, validate_crcs=True).iter_messages(
            None if wanted is None else sorted(wanted), starting_at=start_ns, ending_before=start_ns + length_ns
        )
        theirs = sorted((m.log_time, m.sequence, m.channel_id, m.publish_time, m.data) for _, _, m in stock)
        ours = [
            (m.arrival_ns, m.sequence, m.channel, m.capture_ns, m.payload)
            for m in drive.messages(wanted, start_ns, start_ns + length_ns)
        ]
    assert ours == theirs


def test_a_chunk_holds_no_more_than_half_a_second_even_when_arrivals_go_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    arrivals_ms = [0, 100, 499, 500, 2_000, 1_990, 1_400, 900, 300, 310, 10_000, 9_600]
    with DriveWriter(path) as drive:
        for seq, arrival_ms in enumerate(arrivals_ms):
            drive.write_payload(topics.CAN, b"", capture_ns=0, arrival_ns=arrival_ms * 1_000_000, sequence=seq)
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    for chunk in summary.chunk_indexes:
        assert chunk.message_end_time - chunk.message_start_time < writer.CHUNK_NS
    with DriveReader(path) as read:
        assert [message.arrival_ns // 1_000_000 for message in read.messages()] == sorted(arrivals_ms)


def test_a_chunk_holds_no_more_than_a_megabyte_or_one_message(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DriveWriter(path) as drive:
        for seq, size in enumerate([400_000, 400_000, 400_000, 3_000_000, 10, 10]):
            drive.write_payload(topics.CAN, bytes(size), capture_ns=0, arrival_ns=seq, sequence=seq)
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    sizes: list[ChunkIndex] = summary.chunk_indexes
    assert [index.uncompressed_size // 100_000 for index in sizes] == [8, 4, 30, 0]


def test_an_exception_leaves_an_unfinished_file_with_what_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with pytest.raises(RuntimeError, match="stop"), DriveWriter(path) as drive:
        drive.write_payload(topics.CAN, b"kept", capture_ns=0, arrival_ns=0, sequence=0)
        drive.flush()
        drive.write_payload(topics.CAN, b"lost", capture_ns=0, arrival_ns=1, sequence=1)
        raise RuntimeError("stop")
    with DriveReader(path) as read:
        assert not read.complete
        assert [message.payload for message in read.messages()] == [b"kept"]


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "a.mcap") as drive:
        drive.write_payload(topics.CAN, b"", capture_ns=0, arrival_ns=0, sequence=0)
        drive.close()
        size = drive.path.stat().st_size
    assert drive.path.stat().st_size == size


def test_a_drive_without_messages_is_a_drive(tmp_path: Path, agreed_payloads: Callable[[Path], list[bytes]]) -> None:
    with DriveWriter(tmp_path / "a.mcap", {"why": "nothing happened"}):
        pass
    assert agreed_payloads(tmp_path / "a.mcap") == []
    with DriveReader(tmp_path / "a.mcap") as read:
        assert read.complete
        assert read.span_ns() is None
        assert read.metadata == {"roadfuse.drive": {"why": "nothing happened"}}


@pytest.mark.parametrize(
    "instants", [{"arrival_ns": -1}, {"arrival_ns": 1 << 63}, {"capture_ns": -1}, {"capture_ns": 1 << 64}]
)
def test_an_instant_outside_63_bits_is_refused_and_changes_nothing(instants: dict[str, int], tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "a.mcap") as drive:
        drive.write_payload(topics.CAN, b"1", capture_ns=5, arrival_ns=7, sequence=0)
        with pytest.raises(ValueError, match="instants"):
            drive.write_payload(topics.CAN, b"2", **{"capture_ns": 5, "arrival_ns": 8, "sequence": 1} | instants)
        drive.write_payload(topics.CAN, b"3", capture_ns=5, arrival_ns=9, sequence=2)
    with DriveReader(tmp_path / "a.mcap") as read:
        assert read.span_ns() == (7, 9)
        assert [message.payload for message in read.messages()] == [b"1", b"3"]


def test_a_message_of_another_schema_or_topic_is_refused(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "a.mcap") as drive:
        with pytest.raises(ValueError, match="schema"):
            drive.write(topics.CAMERA, SAMPLES[topics.IMU], arrival_ns=0)
        with pytest.raises(ValueError, match="topics"):
            drive.write_payload("/mine", b"", capture_ns=0, arrival_ns=0, sequence=0)


def test_a_payload_that_no_reader_would_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_PAYLOAD_BYTES", 1000)
    with DriveWriter(tmp_path / "a.mcap") as drive, pytest.raises(ValueError, match="at most 1000 bytes"):
        drive.write_payload(topics.CAN, bytes(1001), capture_ns=0, arrival_ns=0, sequence=0)


def test_what_is_written_comes_back_as_samples(tmp_path: Path) -> None:
    write_all_streams(tmp_path / "a.mcap")
    with DriveReader(tmp_path / "a.mcap") as drive:
        for message in drive.messages(end_ns=2_000):
            sample = codec.decode(message.topic, message.payload, message.sequence)
            assert type(sample) is type(SAMPLES[message.topic])
            assert (sample.stamp_ns, sample.seq) == (message.capture_ns, 1)
