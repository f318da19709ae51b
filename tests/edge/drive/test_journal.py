"""The journal is whole at every instant: replayed at each byte of each write, killed for real, refused by the disk."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Chunk, Message

from edge.drive import journal, topics
from edge.drive.journal import SECTOR_BYTES, Journal
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.samples import CanFrame

Payloads = Callable[[Path], list[bytes]]
PROMISE = "promise"  # so many messages were appended, whatever happens now
VISIBLE = "visible"
SYNC = "sync"


@dataclass(frozen=True)
class Write:
    offset: int
    content: bytes


@dataclass(frozen=True)
class Truncate:
    size: int


Step = Write | Truncate | tuple[str, int]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """All that the journal asks of the disk from now on."""
    recorded: list[Step] = []
    pwrite, ftruncate, fdatasync, replace = os.pwrite, os.ftruncate, os.fdatasync, Path.replace

    def record_pwrite(file: int, content: bytes | memoryview, offset: int) -> int:
        recorded.append(Write(offset, bytes(content)))
        return pwrite(file, content, offset)

    def record_ftruncate(file: int, size: int) -> None:
        recorded.append(Truncate(size))
        ftruncate(file, size)

    def record_fdatasync(file: int) -> None:
        recorded.append((SYNC, 0))
        fdatasync(file)

    def record_replace(path: Path, target: Path) -> Path:
        recorded.append((VISIBLE, 0))
        return replace(path, target)

    monkeypatch.setattr(os, "pwrite", record_pwrite)
    monkeypatch.setattr(os, "ftruncate", record_ftruncate)
    monkeypatch.setattr(os, "fdatasync", record_fdatasync)
    monkeypatch.setattr(Path, "replace", record_replace)
    return recorded


def apply(content: bytearray, step: Step) -> None:
    if isinstance(step, Write):
        content.extend(bytes(max(0, step.offset + len(step.content) - len(content))))
        content[step.offset : step.offset + len(step.content)] = step.content
    elif isinstance(step, Truncate):
        content.extend(bytes(max(0, step.size - len(content))))
        del content[step.size :]


def cuts(step: Step, stride: int) -> range:
    """Where a kill can cut a write: at any byte, unless it lies within one sector."""
    if (
        not isinstance(step, Write)
        or step.offset // SECTOR_BYTES == (step.offset + len(step.content) - 1) // SECTOR_BYTES
    ):
        return range(0)
    return range(1, len(step.content), stride)


def check_each_state(steps: list[Step], appended: list[bytes], path: Path, read: Payloads, stride: int) -> int:
    """Open the file as it was after each step and within it; every state holds what was promised. Gives the count."""
    content, promised, visible, states = bytearray(), 0, False, 0

    def check(state: bytearray) -> None:
        path.write_bytes(state)
        found = read(path)
        assert found == appended[: len(found)]
        assert len(found) >= promised

    for step in steps:
        if visible:
            for cut in cuts(step, stride):
                assert isinstance(step, Write)
                partial = bytearray(content)
                apply(partial, Write(step.offset, step.content[:cut]))
                check(partial)
                states += 1
        apply(content, step)
        if isinstance(step, tuple):
            visible = visible or step[0] == VISIBLE
            promised = step[1] if step[0] == PROMISE else promised
        if visible:
            check(content)
            states += 1
    return states


def chunk_of(numbers: range, size: int) -> tuple[bytes, list[bytes]]:
    """An uncompressed chunk record with a message per number, and their payloads."""
    inside, payloads = RecordBuilder(), []
    for number in numbers:
        payloads.append(struct.pack("<I", number) + random.Random(number).randbytes(size))
        Message(channel_id=1, log_time=number, data=payloads[-1], publish_time=number, sequence=number).write(inside)
    records = inside.end()
    builder = RecordBuilder()
    Chunk("", records, numbers[-1], numbers[0], zlib.crc32(records), len(records)).write(builder)
    return builder.end(), payloads


def append_chunks(path: Path, steps: list[Step], sizes: list[int], *, durable: bool = False) -> list[bytes]:
    """Journal a channel and a chunk of two messages per size, then close; promises stand in `steps`."""
    target = Journal(path, durable=durable)
    builder = RecordBuilder()
    Channel(id=1, topic="/t", message_encoding="", metadata={}, schema_id=0).write(builder)
    target.append(builder.end())
    appended: list[bytes] = []
    for index, size in enumerate(sizes):
        record, payloads = chunk_of(range(2 * index, 2 * index + 2), size)
        target.append(record)
        appended += payloads
        steps.append((PROMISE, len(appended)))
    start = target.position + 13
    target.close(b"", start, zlib.crc32(struct.pack("<BQQQ", 2, 20, start, start)))
    return appended


@pytest.mark.parametrize("extent_bytes", [100, 1500])
def test_a_kill_at_any_byte_of_any_write_leaves_a_whole_file(
    extent_bytes: int, tmp_path: Path, steps: list[Step], agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", extent_bytes)
    sizes = [0, 60, 300, 1, 200, 37]
    appended = append_chunks(tmp_path / "a.mcap", steps, sizes)
    monkeypatch.undo()
    states = check_each_state(steps, appended, tmp_path / "state.mcap", agreed_payloads, stride=1)
    assert states > 800


def test_headers_and_tails_never_straddle_sectors_however_long_the_records(
    tmp_path: Path, steps: list[Step], agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 60)
    for size in range(SECTOR_BYTES):  # each puts the next header and the next tail somewhere else
        steps.clear()
        appended = append_chunks(tmp_path / "a.mcap", steps, [size, size // 2])
        if size % 16 == 0:
            assert agreed_payloads(tmp_path / "a.mcap") == appended
        flips = [step for step in steps if isinstance(step, Write) and len(step.content) == 9]
        tails = [step for step in steps if isinstance(step, Write) and step.content == journal._tail()]
        assert len(flips) > 3
        assert tails
        for step in flips + tails:
            assert step.offset // SECTOR_BYTES == (step.offset + len(step.content) - 1) // SECTOR_BYTES


def test_a_power_cut_that_keeps_any_of_the_unsynced_sectors_leaves_a_whole_file(
    tmp_path: Path, steps: list[Step], agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 2000)
    appended = append_chunks(tmp_path / "a.mcap", steps, [10, 700, 0, 1200, 300], durable=True)
    monkeypatch.undo()
    dice = random.Random(7)
    for _ in range(2000 if long else 400):
        stop = dice.randrange(len(steps))
        content, unsynced, promised, visible = bytearray(), list[Step](), 0, False
        for step in steps[: stop + 1]:
            if isinstance(step, tuple):
                visible = visible or step[0] == VISIBLE
                promised = step[1] if step[0] == PROMISE else promised
            if step == (SYNC, 0):
                for kept in unsynced:
                    apply(content, kept)
                unsynced.clear()
            elif not isinstance(step, tuple):
                unsynced += sectors(step)
        for kept in unsynced:
            if dice.random() < 0.5:
                apply(content, kept)
        if visible:
            (tmp_path / "state.mcap").write_bytes(content)
            found = agreed_payloads(tmp_path / "state.mcap")
            assert found == appended[: len(found)]
            assert len(found) >= promised


def sectors(step: Step) -> list[Step]:
    """A write as the disk does it: sector by sector."""
    if not isinstance(step, Write):
        return [step]
    parts: list[Step] = []
    offset, content = step.offset, step.content
    while content:
        room = SECTOR_BYTES - offset % SECTOR_BYTES
        parts.append(Write(offset, content[:room]))
        offset, content = offset + room, content[room:]
    return parts


def test_a_drive_is_whole_at_every_write_and_within_it(
    tmp_path: Path, steps: list[Step], agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 3000)
    with DriveWriter(tmp_path / "a.mcap", {"source": "test"}) as drive:
        for seq in range(120):
            drive.write(topics.CAN, CanFrame(seq, seq, 0, 7, bytes([seq] * 8)), arrival_ns=seq * 20_000_000)
            if seq % 40 == 39:
                drive.flush()
                steps.append((PROMISE, seq + 1))
    monkeypatch.undo()
    with DriveReader(tmp_path / "a.mcap") as whole:
        appended = [message.payload for message in whole.messages()]
    assert len(appended) == 120
    check_each_state(steps, appended, tmp_path / "state.mcap", agreed_payloads, stride=1 if long else 23)


def test_short_writes_of_the_system_are_continued(
    tmp_path: Path, agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, offset: pwrite(file, content[:5], offset))
    appended = append_chunks(tmp_path / "a.mcap", [], [100, 100])
    monkeypatch.undo()
    assert agreed_payloads(tmp_path / "a.mcap") == appended


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"before")
    Journal(path).abandon()
    with DriveReader(path) as drive:
        assert list(drive.messages()) == []
        assert not drive.complete
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mcap"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "nowhere"])
def test_a_path_that_is_no_place_for_a_file_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "missing" / "a.mcap"
    with pytest.raises(OSError) as refused:
        Journal(path)
    assert refused.value.filename == str(path)


def begun_in_a_child(path: Path) -> tuple[int, int, bytes]:
    """The process that writes, the end of the pipe in which it reports, and its first report."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            drive_until_killed(path, writing)
        finally:
            os._exit(1)
    os.close(writing)
    return child, reading, os.read(reading, 8)


def drive_until_killed(path: Path, report: int) -> None:
    """Write without end, a message a millisecond of arrivals, and report each arrival once it is written."""
    payload = random.Random(1).randbytes(3000)
    drive = DriveWriter(path)
    for seq in range(1 << 40):
        arrival_ns = seq * 1_000_000
        size = 3000 if seq % 50 == 0 else 40
        drive.write_payload(topics.CAN, payload[:size], capture_ns=arrival_ns, arrival_ns=arrival_ns, sequence=seq)
        os.write(report, struct.pack("<Q", arrival_ns))


@pytest.mark.parametrize("extent_bytes", [64 << 10, 16 << 20])
def test_a_real_kill_loses_at_most_a_second_of_arrivals(
    extent_bytes: int, tmp_path: Path, agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", extent_bytes)
    dice = random.Random(extent_bytes)
    lost_ns = []
    for turn in range(100 if long else 15):
        path = tmp_path / f"{turn}.mcap"
        child, reading, reported = begun_in_a_child(path)
        deadline = time.monotonic() + dice.uniform(0.0, 0.08)
        while time.monotonic() < deadline:
            reported = (reported + os.read(reading, 1 << 16))[-16:]
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        while more := os.read(reading, 1 << 16):
            reported = (reported + more)[-16:]
        os.close(reading)
        (last_ns,) = struct.unpack("<Q", reported[-8:])  # one pipe write is whole or not at all
        agreed_payloads(path)
        with DriveReader(path) as drive:
            kept_ns = max((message.arrival_ns for message in drive.messages()), default=-1_000_000)
            assert not drive.complete
        lost_ns.append(last_ns - kept_ns)
        path.unlink()
    assert max(lost_ns) <= 1_000_000_000


def test_a_full_disk_is_an_error_that_leaves_what_was_appended(
    tmp_path: Path, agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 8 << 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    payload = random.Random(3).randbytes(500)
    path = tmp_path / "a.mcap"
    drive = DriveWriter(path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_010, hard))  # the last write in a file can come out half
        with pytest.raises(OSError, match="File too large"):
            for seq in range(1000):
                drive.write_payload(topics.CAN, payload, capture_ns=0, arrival_ns=seq * 100_000_000, sequence=seq)
        kept = len(agreed_payloads(path))
        assert kept >= 10
        with pytest.raises(OSError, match="File too large"):
            drive.flush()
        assert len(agreed_payloads(path)) == kept
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    drive.close()  # the disk has room again: what was refused follows
    assert len(agreed_payloads(path)) > kept
    with DriveReader(path) as whole:
        assert whole.complete
        sequences = [message.sequence for message in whole.messages()]
        assert sequences == list(range(len(sequences)))


def test_half_a_tail_is_taken_back_when_the_disk_refuses_the_rest(
    tmp_path: Path, agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 100)
    path = tmp_path / "a.mcap"
    drive = DriveWriter(path)
    drive.write_payload(topics.CAN, b"kept", capture_ns=0, arrival_ns=0, sequence=0)
    drive.flush()
    large = random.Random(1).randbytes(5000)
    drive.write_payload(topics.CAN, large, capture_ns=0, arrival_ns=1, sequence=1)
    pwrite, room = os.pwrite, path.stat().st_size

    def refuse_beyond_room(file: int, content: bytes | memoryview, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, content[: room - offset], offset)

    refused = 0
    while len(agreed_payloads(path)) == 1:
        monkeypatch.setattr(os, "pwrite", refuse_beyond_room)
        try:
            drive.flush()
        except OSError:
            refused += 1
        monkeypatch.setattr(os, "pwrite", pwrite)
        room += 8
    assert refused > 5000 // 8
    drive.close()
    assert agreed_payloads(path) == [b"kept", large]


def test_closing_on_a_full_disk_leaves_a_file_that_opens(
    tmp_path: Path, agreed_payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EXTENT_BYTES", 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "a.mcap"
    drive = DriveWriter(path)
    drive.write_payload(topics.CAN, b"kept", capture_ns=0, arrival_ns=0, sequence=0)
    drive.flush()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        with pytest.raises(OSError, match="File too large"):
            drive.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert agreed_payloads(path) == [b"kept"]


def test_a_second_writer_of_a_file_is_refused_and_the_first_loses_nothing(
    tmp_path: Path, agreed_payloads: Payloads
) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"before")
    first = DriveWriter(path)
    first.write_payload(topics.CAN, b"kept", capture_ns=0, arrival_ns=0, sequence=0)
    (tmp_path / "link.mcap").symlink_to(path)
    for name in ("a.mcap", "link.mcap"):
        with pytest.raises(BlockingIOError, match="another run is writing") as refused:
            DriveWriter(tmp_path / name)
        assert Path(refused.value.filename).resolve() == path
    first.close()
    assert agreed_payloads(path) == [b"kept"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.mcap", "link.mcap"]
    DriveWriter(path).close()  # over one that is finished
    assert agreed_payloads(path) == []


def test_a_writer_that_only_begins_refuses_a_second_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    begun = journal._claimed(tmp_path / "a.mcap.new")
    with pytest.raises(BlockingIOError, match="another run is writing"):
        Journal(path)
    assert (tmp_path / "a.mcap.new").exists()
    os.close(begun)
    Journal(path).abandon()


def test_a_writer_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    (tmp_path / "a.mcap.new").write_bytes(b"of one that was killed before its first footer" * 1000)
    child, reading, _ = begun_in_a_child(path)
    os.close(reading)
    with pytest.raises(BlockingIOError):
        Journal(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with DriveWriter(path):
        pass
    with DriveReader(path) as drive:
        assert drive.complete


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    for mode in (0o640, 0o600, 0o200, 0o444):
        path = tmp_path / f"{mode:o}.mcap"
        path.touch()
        path.chmod(mode)
        Journal(path).abandon()
        assert path.stat().st_mode & 0o7777 == mode
