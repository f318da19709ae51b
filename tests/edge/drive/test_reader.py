"""What is in a file comes out in one order; what is wrong with it comes out as one clear error, within bounds."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.reader import NonSeekingReader, make_reader
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    Message,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
)
from mcap.writer import CompressionType, IndexType, Writer

from edge.drive import chunks, contents, reader, topics
from edge.drive.journal import MAGIC
from edge.drive.reader import DriveMessage, DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import DriveDamaged, DriveError, DriveFormatError

WriteSmall = Callable[..., None]


def messages(path: Path, **query: Any) -> list[DriveMessage]:
    with DriveReader(path) as drive:
        return list(drive.messages(**query))


def read_as_far_as_possible(path: Path) -> tuple[list[DriveMessage], DriveError | None]:
    """What is delivered, and the error that ended it; anything but a DriveError gets through."""
    found: list[DriveMessage] = []
    try:
        with DriveReader(path) as drive:
            drive.span_ns()
            found.extend(drive.messages())  # what comes before an exception stays in the list
    except DriveError as error:
        assert "\n" not in str(error)
        assert "expected" in str(error)
        assert str(path) in str(error)
        if isinstance(error, DriveDamaged):
            assert 0 <= error.offset <= path.stat().st_size
        return found, error
    return found, None


# Records by hand, for files that no writer writes.


def record(item: Any) -> bytes:
    builder = RecordBuilder()
    item.write(builder)
    content: bytes = builder.end()
    return content


def raw(opcode: int, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(body) if length is None else length) + body


def message(channel: int, at_ns: int, content: bytes = b"") -> bytes:
    return record(Message(channel_id=channel, log_time=at_ns, data=content, publish_time=at_ns, sequence=at_ns % 1000))


def channel(number: int = 1, topic: str = "/t") -> bytes:
    return record(Channel(id=number, topic=topic, message_encoding="", metadata={}, schema_id=0))


def chunk(records: bytes, start_ns: int = 0, end_ns: int = 1000, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "compression": "",
        "data": records,
        "message_end_time": end_ns,
        "message_start_time": start_ns,
        "uncompressed_crc": zlib.crc32(records),
        "uncompressed_size": len(records),
    }
    return record(Chunk(**fields | changes))


Places = list[tuple[int, int]]  # offset and length of each record
HEAD = MAGIC + record(Header(profile="", library="test"))


def unindexed(*records: bytes) -> bytes:
    return HEAD + b"".join(records) + record(DataEnd(0)) + record(Footer(0, 0, 0)) + MAGIC


def indexed(records: list[bytes], summary: Callable[[Places], list[bytes]]) -> bytes:
    """A file whose summary is made from the (offset, length) of its records."""
    places, at = [], len(HEAD)
    for item in records:
        places.append((at, len(item)))
        at += len(item)
    section = b"".join(summary(places))
    content = HEAD + b"".join(records) + record(DataEnd(0))
    return content + section + record(Footer(len(content), 0, 0)) + MAGIC


def chunk_index(offset: int, length: int, start_ns: int = 0, end_ns: int = 1000) -> bytes:
    return record(ChunkIndex(length, offset, "", 0, end_ns, 0, {}, start_ns, 0))


def statistics(chunk_count: int, channel_count: int = 1, metadata_count: int = 0) -> bytes:
    return record(Statistics(0, channel_count, {}, chunk_count, 0, 0, 0, metadata_count, 0))


def summary_of(chunk_at: int, *others: bytes) -> Callable[[Places], list[bytes]]:
    """A summary of some records, and the index of the one chunk among the file's records."""

    def make(at: Places) -> list[bytes]:
        offset, length = at[chunk_at]
        return [*others, chunk_index(offset, length, 10, 20)]

    return make


GOOD = chunk(message(1, 10, b"good") + message(1, 20, b"too"), 10, 20)
LATER = chunk(message(1, 500, b"later"), 500, 500)


# Order and time ranges.


def test_equal_arrivals_are_ordered_by_sequence_then_channel(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DriveWriter(path) as drive:
        for topic, arrival_ns, sequence in [
            ("/can", 5, 2),
            ("/imu", 5, 1),
            ("/can", 5, 1),
            ("/imu", 4, 9),
            ("/can", 600_000_000, 3),
            ("/imu", 5, 0),
        ]:
            drive.write_payload(topic, b"", capture_ns=0, arrival_ns=arrival_ns, sequence=sequence)
            drive.flush()
    order = [(item.arrival_ns, item.sequence, item.topic) for item in messages(path)]
    assert order == [
        (4, 9, "/imu"),
        (5, 0, "/imu"),
        (5, 1, "/can"),
        (5, 1, "/imu"),
        (5, 2, "/can"),
        (600_000_000, 3, "/can"),
    ]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written=st.lists(
        st.tuples(st.sampled_from(["/imu", "/can"]), st.integers(0, 60), st.integers(0, 5), st.booleans()), max_size=40
    ),
    start_ns=st.none() | st.integers(0, 70),
    end_ns=st.none() | st.integers(0, 70),
    wanted=st.none() | st.sets(st.sampled_from(["/imu", "/can", "/none"])),
    finish=st.booleans(),
)
def test_a_seek_equals_a_filter_of_the_whole_however_chunks_overlap(
    written: list[tuple[str, int, int, bool]],
    start_ns: int | None,
    end_ns: int | None,
    wanted: set[str] | None,
    finish: bool,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.mcap"
    drive = DriveWriter(path)
    for number, (topic, arrival_ns, sequence, flush) in enumerate(written):
        drive.write_payload(topic, b"%d" % number, capture_ns=number, arrival_ns=arrival_ns, sequence=sequence)
        if flush:
            drive.flush()
    if finish:
        drive.close()
    else:
        drive.leave()
    whole = messages(path)
    assert whole == sorted(whole)
    assert sorted(item.capture_ns for item in whole) == list(range(len(written)))
    assert messages(path, topics=wanted, start_ns=start_ns, end_ns=end_ns) == [
        item
        for item in whole
        if (wanted is None or item.topic in wanted)
        and (start_ns is None or item.arrival_ns >= start_ns)
        and (end_ns is None or item.arrival_ns < end_ns)
    ]
    with DriveReader(path) as read:
        assert read.complete == finish
        assert read.span_ns() == ((whole[0].arrival_ns, whole[-1].arrival_ns) if whole else None)


def test_an_unfinished_file_reads_as_the_finished_one_does(tmp_path: Path, write_small: WriteSmall) -> None:
    write_small(tmp_path / "a.mcap")
    whole = (tmp_path / "a.mcap").read_bytes()
    (start,) = struct.unpack("<Q", whole[-28:-20])
    (tmp_path / "b.mcap").write_bytes(whole[:start] + record(Footer(0, 0, 0)) + MAGIC)
    assert messages(tmp_path / "a.mcap") == messages(tmp_path / "b.mcap")
    with DriveReader(tmp_path / "a.mcap") as finished, DriveReader(tmp_path / "b.mcap") as unfinished:
        assert (finished.complete, unfinished.complete) == (True, False)
        assert finished.metadata == unfinished.metadata == {"roadfuse.drive": {"source": "test"}}
        assert finished.channels == unfinished.channels
        assert finished.span_ns() == unfinished.span_ns()
        assert finished.topics == {"/imu", "/can", "/gnss"}


# Files of other writers.


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("index", [IndexType.ALL, IndexType.NONE, IndexType.MESSAGE])
def test_files_of_the_stock_writer_are_read_as_the_stock_reader_does(
    compression: CompressionType, chunked: bool, repeated: bool, index: IndexType, tmp_path: Path
) -> None:
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(
            file,
            chunk_size=300,
            compression=compression,
            use_chunking=chunked,
            repeat_channels=repeated,
            index_types=index,
            use_statistics=repeated,
            use_summary_offsets=repeated,
        )
        writer.start("ros2", "another")
        schema = writer.register_schema("text", "jsonschema", b"{}")
        for name in ("/b", "/a"):
            number = writer.register_channel(name, "json", schema)
            for at_ns in range(7, 2007, 100):
                writer.add_message(number, at_ns, b'{"at": %d}' % at_ns, at_ns - 7, at_ns // 100)
        writer.add_attachment(0, 0, "picture", "image/png", b"\x00" * 50)
        writer.add_metadata("notes", {"place": "here"})
        writer.finish()
    with path.open("rb") as file:
        stock = NonSeekingReader(file, validate_crcs=True)  # the seeking one fails where channels aren't repeated
        theirs = sorted((m.log_time, m.sequence, c.topic, m.data) for _, c, m in stock.iter_messages())
    with DriveReader(path) as drive:
        ours = [(m.arrival_ns, m.sequence, m.topic, m.payload) for m in drive.messages()]
        assert {(c.topic, c.schema, c.schema_encoding) for c in drive.channels.values()} == {
            ("/a", "text", "jsonschema"),
            ("/b", "text", "jsonschema"),
        }
        assert drive.complete
        assert drive.metadata == {"notes": {"place": "here"}}
        assert [m.arrival_ns for m in drive.messages({"/b"}, 1000, 1200)] == [1007, 1107]
    assert sorted(ours, key=lambda item: item[:3]) == theirs
    assert len(ours) == 40


def test_a_channel_that_is_defined_in_an_earlier_chunk_only_is_known_after_a_seek(tmp_path: Path) -> None:
    first = chunk(channel(1, "/t") + message(1, 10), 10, 10)
    path = tmp_path / "a.mcap"
    path.write_bytes(
        indexed([first, LATER], lambda at: [statistics(2), chunk_index(*at[0], 10, 10), chunk_index(*at[1], 500, 500)])
    )
    assert [item.payload for item in messages(path, start_ns=400)] == [b"later"]


def test_a_schema_that_stands_behind_its_channel_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    late = record(Schema(id=3, data=b"x", encoding="e", name="late"))
    path.write_bytes(unindexed(record(Channel(1, "/t", "", {}, 3)), late, GOOD))
    with DriveReader(path) as drive:
        assert drive.channels[1].schema == "late"


def test_empty_chunks_of_other_writers_do_not_stretch_the_span(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(chunk(channel(), 0, 0), GOOD))
    with DriveReader(path) as drive:
        assert drive.span_ns() == (10, 20)


def test_real_recordings_of_other_writers_are_read_as_the_stock_reader_does(recordings: Path) -> None:
    paths = sorted((recordings / "formats" / "mcap-ros2").rglob("*.mcap"))
    if not paths:
        pytest.skip(f"no MCAP files under {recordings}")
    for path in paths:
        with path.open("rb") as file:
            theirs = sorted(
                (m.log_time, m.sequence, m.channel_id, m.publish_time, c.topic, m.data)
                for _, c, m in make_reader(file, validate_crcs=True).iter_messages()
            )
        assert messages(path) == theirs, path.name


def test_truncated_real_recordings_give_what_stands_before_the_cut(recordings: Path, tmp_path: Path) -> None:
    paths = sorted((recordings / "formats" / "mcap-ros2").rglob("*.mcap"))
    dice = random.Random(5)
    for path in paths:
        whole, content = messages(path), path.read_bytes()
        for _ in range(10):
            (tmp_path / "cut.mcap").write_bytes(content[: dice.randrange(8, len(content))])
            found, error = read_as_far_as_possible(tmp_path / "cut.mcap")
            assert isinstance(error, DriveDamaged)
            assert set(found) <= set(whole)


# Foreign files and things that are no files.


@pytest.mark.parametrize("content", [b"", b"\x89MCAP", b"\x89MCAP1\r\n" + bytes(100), b"#ROSBAG V2.0\n", bytes(4096)])
def test_an_empty_or_foreign_file_is_no_drive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(content)
    with pytest.raises(DriveFormatError, match="expected an MCAP file"):
        DriveReader(tmp_path / "a.mcap")


def test_a_folder_a_pipe_and_a_device_are_no_drives(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DriveFormatError, match="expected an MCAP file"):
            DriveReader(path)
    with pytest.raises(FileNotFoundError):
        DriveReader(tmp_path / "missing.mcap")


# Damage.


def test_a_file_cut_at_any_byte_gives_what_stands_before_and_says_where(
    tmp_path: Path, write_small: WriteSmall
) -> None:
    path = tmp_path / "a.mcap"
    with DriveWriter(path) as drive:
        for seq in range(15):
            drive.write_payload(topics.CAN, b"%d" % seq, capture_ns=0, arrival_ns=seq * 100_000_000, sequence=seq)
    whole, content = messages(path), path.read_bytes()
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    ends = [index.chunk_start_offset + index.chunk_length for index in summary.chunk_indexes]
    per_chunk = [5] * 3
    for size in range(len(content)):
        path.write_bytes(content[:size])
        found, error = read_as_far_as_possible(path)
        assert isinstance(error, DriveDamaged if size >= len(MAGIC) else DriveFormatError)
        assert found == whole[: sum(count for end, count in zip(ends, per_chunk) if end <= size)]


def test_after_damage_the_reader_goes_on_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    bad = bytearray(GOOD)
    bad[-1] ^= 1
    path.write_bytes(unindexed(channel(), GOOD, bytes(bad), chunk(b"", uncompressed_size=1 << 60), LATER))
    damages: list[DriveDamaged] = []
    with DriveReader(path, damages.append) as drive:
        assert [item.payload for item in drive.messages()] == [b"good", b"too", b"later"]
    assert sorted(damage.offset for damage in damages) == [
        len(HEAD + channel() + GOOD),
        len(HEAD + channel() + GOOD + bad),
    ]
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"good", b"too"]
    assert isinstance(error, DriveDamaged)


@pytest.mark.parametrize(
    ("inside", "delivered"),
    [
        (message(1, 10, b"a") + raw(5, b"short"), [b"a"]),
        (message(1, 10, b"a") + raw(5, bytes(30), length=1000), [b"a"]),
        (message(1, 10, b"a") + raw(5, bytes(30), length=(1 << 64) - 1), [b"a"]),
        (message(1, 10, b"a") + message(7, 11, b"unknown"), [b"a"]),
        (message(1, 10, b"a") + message(1, 5000, b"outside"), [b"a"]),
        (message(1, 10, b"a") + b"\x05\x01", [b"a"]),
        (b"\x00" * 100, []),
    ],
    ids=["short message", "longer than its chunk", "2^64-1", "unknown channel", "outside its span", "cut", "zeros"],
)
def test_a_malformed_record_in_a_chunk_is_named_and_what_stands_before_it_delivered(
    inside: bytes, delivered: list[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), chunk(inside), LATER))
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == delivered
    assert isinstance(error, DriveDamaged)
    assert error.offset == len(HEAD + channel())


HUGE = (1 << 63, (1 << 64) - 1, 1 << 40, (256 << 20) + 1)


@pytest.mark.parametrize("claim", HUGE)
@pytest.mark.parametrize("opcode", [1, 3, 4, 5, 6, 7, 9, 12, 0x80, 0xFF])
def test_a_record_that_claims_more_than_the_file_has_is_damage(opcode: int, claim: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(HEAD + channel() + GOOD + raw(opcode, bytes(50), length=claim) + MAGIC)
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"good", b"too"]
    assert isinstance(error, DriveDamaged)
    assert error.offset == len(HEAD + channel() + GOOD)


@pytest.mark.parametrize("claim", HUGE)
@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
def test_a_chunk_that_claims_an_absurd_size_is_damage(compression: str, claim: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), GOOD, chunk(b"x", compression=compression, uncompressed_size=claim)))
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"good", b"too"]
    assert isinstance(error, DriveDamaged)
    assert "MiB" in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"compression": "zstd"},
        {"compression": "lz4"},
        {"compression": "brotli"},
        {"compression": "z" * 100},
        {"compression": "é"},
        {"uncompressed_size": 1},
        {"uncompressed_size": 10_000},
        {"uncompressed_crc": 7},
        {"compression": "zstd", "data": zstandard.compress(bytes(100))},
        {"compression": "zstd", "data": zstandard.compress(bytes(100))[:-3], "uncompressed_size": 100},
        {"compression": "zstd", "data": b"", "uncompressed_size": 0},
        {"compression": "lz4", "data": lz4.frame.compress(bytes(100))},
        {"compression": "lz4", "data": lz4.frame.compress(bytes(100))[:-8], "uncompressed_size": 100},
        {"compression": "lz4", "data": b"", "uncompressed_size": 5},
    ],
)
def test_a_chunk_whose_data_is_not_what_it_says_is_damage(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), GOOD, chunk(message(1, 30), **changes), LATER))
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"good", b"too"]
    assert isinstance(error, DriveDamaged)


def test_a_zstd_frame_without_its_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    records = message(1, 30, b"streamed")
    data = zstandard.ZstdCompressor(write_content_size=False).compress(records)
    path.write_bytes(
        unindexed(channel(), chunk(records, compression="zstd", data=data, uncompressed_size=len(records)))
    )
    assert [item.payload for item in messages(path)] == [b"streamed"]


@pytest.mark.parametrize(
    "index",
    [
        lambda at: [chunk_index(*at[1]), chunk_index(*at[1])],  # one chunk twice
        lambda at: [chunk_index(at[1][0], 1 << 62), chunk_index(*at[2])],
        lambda at: [chunk_index(1 << 63, 100), chunk_index(*at[2])],
        lambda at: [chunk_index((1 << 64) - 1, 100), chunk_index(*at[2])],
        lambda at: [chunk_index(0, 100), chunk_index(*at[2])],
        lambda at: [chunk_index(at[2][0] + at[2][1] + 30, 60), chunk_index(*at[2])],  # the index itself
        lambda at: [chunk_index(at[1][0] + 1, at[1][1] - 1), chunk_index(*at[2])],
        lambda at: [chunk_index(*at[0]), chunk_index(*at[2])],  # a channel, not a chunk
        lambda at: [chunk_index(at[1][0], at[1][1] - 1), chunk_index(*at[2])],
    ],
)
def test_an_index_that_points_elsewhere_is_damage(index: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(indexed([channel(), GOOD, LATER], lambda at: [channel(), statistics(2), *index(at)]))
    found, error = read_as_far_as_possible(path)
    assert isinstance(error, DriveDamaged)
    assert {item.payload for item in found} <= {b"good", b"too", b"later"}


def test_a_metadata_index_that_points_elsewhere_is_damage_and_the_messages_are_delivered(tmp_path: Path) -> None:
    facts = record(Metadata("facts", {"a": "b"}))
    path = tmp_path / "a.mcap"
    for offset, length in [(0, 10), (1 << 63, 10), (len(HEAD), len(channel())), (len(HEAD + channel()), 10)]:
        index = record(MetadataIndex(offset, length, "facts"))
        path.write_bytes(indexed([channel(), facts, GOOD], summary_of(2, channel(), statistics(1, 1, 1), index)))
        found, error = read_as_far_as_possible(path)
        assert [item.payload for item in found] == [b"good", b"too"]
        assert isinstance(error, DriveDamaged)


def test_an_index_whose_times_are_wrong_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(indexed([GOOD], lambda at: [channel(), statistics(1), chunk_index(*at[0], 15, 20)]))
    _, error = read_as_far_as_possible(path)
    assert isinstance(error, DriveDamaged)
    assert "15..20" in str(error)


def test_a_summary_that_omits_chunks_or_channels_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    for summary in (
        [statistics(2), channel()],
        [channel()],
        [statistics(0)],
    ):
        path.write_bytes(indexed([channel(), GOOD, LATER], summary_of(1, *summary)))
        assert len(messages(path)) == 3


def test_a_summary_with_a_wrong_checksum_is_damage_and_the_messages_are_delivered(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with DriveWriter(path) as drive:
        drive.write_payload(topics.CAN, b"a", capture_ns=0, arrival_ns=0, sequence=0)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack("<Q", content[-28:-20])
    content[start + 40] ^= 4
    path.write_bytes(content)
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"a"]
    assert isinstance(error, DriveDamaged)
    assert error.offset == start


@pytest.mark.parametrize(
    "definition",
    [
        raw(Opcode.CHANNEL, struct.pack("<HHI", 2, 0, 4) + b"\xff\xfe\xfd\xfc" + struct.pack("<II", 0, 0)),
        raw(Opcode.CHANNEL, struct.pack("<HHI", 2, 0, 1 << 31)),
        raw(Opcode.CHANNEL, b""),
        raw(Opcode.SCHEMA, struct.pack("<HIII", 1, 0, 0, 1000)),
        raw(Opcode.METADATA, struct.pack("<II", 0, 1 << 30)),
        raw(Opcode.METADATA, struct.pack("<III", 0, 8, 4) + b"\xff\xff\xff\xff"),
        channel(1, "/another"),
    ],
    ids=["utf-8", "long name", "empty channel", "short schema", "long map", "utf-8 map", "channel redefined"],
)
def test_a_malformed_definition_is_damage(definition: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), GOOD, definition, LATER))
    found, error = read_as_far_as_possible(path)
    assert [item.payload for item in found] == [b"good", b"too"]
    assert isinstance(error, DriveDamaged)
    assert error.offset == len(HEAD + channel() + GOOD)


def test_definitions_without_end_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_DEFINITION_BYTES", 1 << 20)
    path = tmp_path / "a.mcap"
    path.write_bytes(
        unindexed(*(record(Schema(number + 1, bytes(100_000), "", "s")) for number in range(20)), channel(), GOOD)
    )
    _, error = read_as_far_as_possible(path)
    assert isinstance(error, DriveDamaged)
    assert "MiB of schemas" in str(error)


def test_more_damages_than_a_drive_has_end_the_walk(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(GOOD, *[raw(Opcode.CHANNEL)] * 5000))
    damages: list[DriveDamaged] = []
    with DriveReader(path, damages.append) as drive:
        list(drive.messages())
    assert len(damages) <= contents.MAX_DAMAGES + 1


def test_messages_outside_chunks_stay_one_stretch_whatever_is_skipped_between_them(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), *(message(1, at_ns) + raw(0x90) for at_ns in range(1000))))
    file = chunks.McapBytes(path)
    assert len(contents.read_contents(file).places) == 1
    file.close()
    assert [found.arrival_ns for found in messages(path)] == list(range(1000))


def test_a_malformed_message_outside_chunks_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), message(1, 1), raw(Opcode.MESSAGE, b"short"), message(1, 2), message(1, 3)))
    damages: list[DriveDamaged] = []
    with DriveReader(path, damages.append) as drive:
        assert [found.arrival_ns for found in drive.messages()] == [1, 2, 3]
    assert len(damages) == 1


def test_more_chunks_than_a_drive_has_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_PLACES", 5)
    records = [channel(), *(chunk(message(1, at_ns)) for at_ns in range(9))]
    path = tmp_path / "a.mcap"
    for content in (
        unindexed(*records),
        indexed(records, lambda at: [channel(), statistics(9), *(chunk_index(*place) for place in at[1:])]),
    ):
        path.write_bytes(content)
        found, error = read_as_far_as_possible(path)
        assert [item.arrival_ns for item in found] == [0, 1, 2, 3, 4]
        assert "more than 5 chunks" in str(error)


# Bombs: small files that ask for much. Run apart, with little memory.


def bombs(folder: Path, long: bool) -> dict[str, Path]:
    """A small file of each kind."""
    size = chunks.MAX_RECORD_BYTES

    def zstd(records: bytes, says: int, **options: Any) -> bytes:
        data = zstandard.ZstdCompressor(1, **options).compress(records)
        return chunk(b"", compression="zstd", data=data, uncompressed_size=says, uncompressed_crc=0)

    def lz4_chunk(records: bytes, says: int) -> bytes:
        data = lz4.frame.compress(records)
        return chunk(b"", compression="lz4", data=data, uncompressed_size=says, uncompressed_crc=0)

    tiny = message(1, 10) * (size // len(message(1, 10)))
    half = message(1, 999, bytes(size // 2))
    wide = b"\x28\xb5\x2f\xfd\x00\xa0" + bytes(20)  # a zstd frame that wants a window of a gigabyte
    files = {
        "tiny messages": [zstd(tiny, len(tiny))],
        "zstd longer than it says": [zstd(bytes(size), 100, write_content_size=False)],
        "zstd window": [
            chunk(b"", compression="zstd", data=wide, uncompressed_size=1 << 20, uncompressed_crc=0),
        ],
        "lz4 longer than it says": [lz4_chunk(bytes(size), 9)],
        "overlap": [zstd(half, len(half))] * 5,
    }
    if long:
        files |= {
            "zstd of zeros": [zstd(bytes(size), size)],
            "zstd frame that lies": [zstd(bytes(size), 100)],
            "empty records": [zstd(raw(0x90) * (size // 9), size // 9 * 9)] * 3,
            "tiny messages again": [zstd(tiny, len(tiny))] * 5,
            "lz4 of zeros": [lz4_chunk(bytes(size), size)],
        }
    paths = {}
    for name, records in files.items():
        paths[name] = folder / f"{name}.mcap"
        paths[name].write_bytes(unindexed(channel(), *records))
    return paths


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged
limit = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for path in sys.argv[2:]:
    for on_damage in (None, lambda damage: None):
        try:
            with DriveReader(path, on_damage) as drive:
                count = sum(1 for _ in drive.messages())
            print(count)
        except DriveDamaged as damage:
            print(f"damaged at {damage.offset}")
"""


def test_bombs_are_refused_within_a_bound_on_memory(tmp_path: Path, long: bool) -> None:
    paths = bombs(tmp_path, long)
    assert max(path.stat().st_size for path in paths.values()) < 4 << 20
    result = subprocess.run(
        [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, "1200", *map(str, paths.values())],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(result.stdout.splitlines()) == 2 * len(paths)
    assert result.stdout.count("damaged") == len(paths)  # each raised once, and once gone on behind


def test_chunks_that_overlap_beyond_the_bound_are_damage_and_the_others_are_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_OVERLAP_BYTES", 10_000)
    path = tmp_path / "a.mcap"
    path.write_bytes(unindexed(channel(), *[chunk(message(1, 900, bytes(3000)))] * 5, LATER))
    found, error = read_as_far_as_possible(path)
    assert len(found) == 3
    assert isinstance(error, DriveDamaged)
    assert "overlap" in str(error)


def test_very_many_overlapping_chunks_take_time_in_proportion(tmp_path: Path, long: bool) -> None:
    path = tmp_path / "a.mcap"
    count = 1_000_000 if long else 30_000
    with path.open("wb") as file:
        file.write(HEAD + channel())
        for number in range(count):  # each starts a little later and all reach to the end
            file.write(chunk(message(1, number) + message(1, count), number, count))
        file.write(record(DataEnd(0)) + record(Footer(0, 0, 0)) + MAGIC)
    last = -1
    with DriveReader(path) as drive:
        delivered = 0
        for item in drive.messages():
            assert item.arrival_ns >= last
            last = item.arrival_ns
            delivered += 1
    assert delivered == 2 * count


# Fuzz.


def fuzz_seeds(tmp_path: Path, write_small: WriteSmall) -> list[bytes]:
    write_small(tmp_path / "seed.mcap", messages=12)
    stock = BytesIO()
    writer = Writer(stock, chunk_size=120, compression=CompressionType.LZ4)
    writer.start()
    number = writer.register_channel("/a", "json", writer.register_schema("s", "jsonschema", b"{}"))
    for at_ns in range(12):
        writer.add_message(number, at_ns, b"{}", at_ns, at_ns)
    writer.add_metadata("notes", {"a": "b"})
    writer.finish()
    by_hand = indexed(
        [channel(), GOOD, LATER],
        lambda at: [channel(), statistics(2), chunk_index(*at[1], 10, 20), chunk_index(*at[2], 500, 500)],
    )
    loose = unindexed(channel(), message(1, 5, b"a"), message(1, 3, b"b"), GOOD)
    return [(tmp_path / "seed.mcap").read_bytes(), stock.getvalue(), by_hand, loose]


def mutated(dice: random.Random, seed: bytes) -> bytes:
    content = bytearray(seed)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        kind = dice.randrange(7)
        at = dice.randrange(8, len(content) + 1)
        if kind == 0:
            content[at : at + 1] = bytes([dice.randrange(256)])
        elif kind == 1 and at < len(content):
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 2:  # a length, a time or an offset
            size = dice.choice((2, 4, 8))
            value = dice.choice((0, 1, 9, len(content), (1 << 8 * size) - 1, 1 << (8 * size - 1), dice.getrandbits(8)))
            content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 3:
            del content[at : at + dice.randrange(1, 40)]
        elif kind == 4:
            other = dice.randrange(len(content))
            content[at:at] = content[other : other + dice.randrange(80)]
        elif kind == 5:
            content[at:at] = dice.randbytes(dice.randrange(1, 20))
        else:
            del content[at + dice.randrange(200) :]
        content += bytes(max(0, 9 - len(content)))
    return bytes(content)


@pytest.mark.parametrize("seed", range(4), ids=["ours", "stock", "indexed", "loose"])
def test_mutated_files_are_read_or_refused_and_nothing_else(
    seed: int, tmp_path: Path, write_small: WriteSmall, long: bool
) -> None:
    content = fuzz_seeds(tmp_path, write_small)[seed]
    path = tmp_path / "case.mcap"
    outcomes = {True: 0, False: 0}
    for case in range(20_000 if long else 2_000):
        path.write_bytes(mutated(random.Random(f"{seed} {case}"), content))
        try:
            _, error = read_as_far_as_possible(path)
            with DriveReader(path, lambda damage: None) as drive:
                list(drive.messages(start_ns=10, end_ns=400))
        except DriveFormatError:
            pass
        except Exception as crash:
            pytest.fail(f"seed {seed} case {case}: {crash!r}")
        outcomes[error is None] += 1
    assert min(outcomes.values()) > 0


def test_a_flipped_bit_in_a_chunk_never_changes_a_message_unseen(tmp_path: Path, write_small: WriteSmall) -> None:
    path = tmp_path / "a.mcap"
    write_small(path, messages=30)
    whole, content = set(messages(path)), path.read_bytes()
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    index = summary.chunk_indexes[0]
    for at in range(index.chunk_start_offset, index.chunk_start_offset + index.chunk_length):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        found, _ = read_as_far_as_possible(path)
        assert set(found) <= whole


@pytest.mark.parametrize(("log_time", "publish_time"), [(1 << 63, 0), ((1 << 64) - 1, 0), (0, 1 << 63)])
def test_an_instant_beyond_the_end_of_time_is_damage(log_time: int, publish_time: int, tmp_path: Path) -> None:
    path = tmp_path / "far.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/x", "json", 0)
        writer.add_message(channel, log_time=log_time, data=b"{}", publish_time=publish_time)
        writer.finish()
    with pytest.raises(DriveDamaged, match="no time"), DriveReader(path) as reader:
        list(reader.messages())
