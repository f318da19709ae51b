"""One writer of the slots: nothing over its head, nothing told before it is durable, nothing lost for good."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from edge.errors import UpdateError
from edge.updates.ledger import Ledger
from edge.updates.record import MAX_BYTES, Record, RecordLost
from edge.updates.slots import Answer, Held, Slots, answer_record, kept_record, read_answer, read_slots, slots_record
from roadfuse.v1.updates_pb2 import Stage

from .crash_disk import CrashDisk


class FullDisk(CrashDisk):
    """Has no room left for some."""

    is_full_for = "\0"

    def write(self, name: str, content: bytes) -> None:
        if name.startswith(self.is_full_for):
            super().write(name, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, content)


class WornDisk(CrashDisk):
    """Some of its files can't be read, until they are written anew."""

    worn: tuple[str, ...] = ()

    def read(self, name: str) -> bytes:
        self._reach(name)
        return super().read(name)

    def size(self, name: str) -> int | None:
        self._reach(name)
        return super().size(name)

    def _reach(self, name: str) -> None:
        if name in self.worn:
            raise OSError(errno.EIO, "Input/output error")


class BadBlocks(CrashDisk):
    """What some of its files hold can't be read until it is written anew."""

    bad: frozenset[str] | set[str] = frozenset()

    def read(self, name: str) -> bytes:
        if name in self.bad:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(name)

    def write(self, name: str, content: bytes) -> None:
        super().write(name, content)
        self.bad = self.bad - {name}


def test_each_change_counts_the_epoch_and_is_what_a_reader_finds() -> None:
    disk = CrashDisk()
    ledger = Ledger(disk, lambda: 42)
    first = ledger.now
    assert ledger.change(first, replace(first, stage=Stage.STAGE_REFUSED, why="x"))
    assert ledger.now.epoch == first.epoch + 1
    assert ledger.now.since_ns == 42
    assert read_slots(disk) == ledger.now == Ledger(disk, lambda: 0).now


def test_a_change_thought_out_on_other_slots_is_void() -> None:
    ledger = Ledger(CrashDisk(), lambda: 0)
    seen = ledger.now
    assert ledger.apply(lambda slots: replace(slots, why="a stop came first")) is not None
    assert not ledger.change(seen, replace(seen, why="too late"))
    assert ledger.now.why == "a stop came first"


@pytest.mark.parametrize("name", ["slots", "kept"])
def test_a_full_disk_leaves_what_was_there(name: str) -> None:
    disk = FullDisk()
    ledger = Ledger(disk, lambda: 0)
    ledger.change(ledger.now, replace(ledger.now, why="before"))
    disk.is_full_for = name
    seen = ledger.now
    with pytest.raises(OSError, match="No space left"):
        ledger.change(seen, replace(seen, why="after"))
    assert ledger.now is seen
    assert read_slots(disk) == seen
    disk.is_full_for = "\0"
    assert ledger.change(seen, replace(seen, why="after"))
    assert read_slots(disk) == ledger.now


def test_slots_that_could_not_be_read_back_replace_nothing() -> None:
    disk = CrashDisk()
    ledger = Ledger(disk, lambda: 0)
    seen = ledger.now
    with pytest.raises(UpdateError, match="expected a whole number"):
        ledger.change(seen, replace(seen, stop_number=1 << 63))
    assert ledger.now is seen
    for record in (slots_record(disk), kept_record(disk)):
        assert Slots.of(record.read() or b"") == seen
    assert ledger.change(seen, replace(seen, stop_number=1))


@pytest.mark.parametrize("worn", ["a", "b"])
def test_a_copy_that_can_not_be_read_leaves_the_other_and_is_written_over(worn: str) -> None:
    disk = WornDisk()
    record = Record(disk, "it")
    for content in (b"1", b"2"):
        record.write(content)
    disk.worn = (f"it.{worn}",)
    again = Record(disk, "it")
    assert again.read() == {"a": b"2", "b": b"1"}[worn]
    again.hold()
    disk.worn = ()
    again.write(b"3")
    assert Record(disk, "it").read() == b"3"
    assert disk.read(f"it.{worn}").endswith(b"3")  # the whole one was not risked


def test_a_record_of_which_no_copy_can_be_read_is_not_taken_for_a_fresh_start() -> None:
    disk = WornDisk()
    record = Record(disk, "it")
    record.write(b"1")
    disk.worn = ("it.a",)
    with pytest.raises(OSError, match="Input/output error"):
        Record(disk, "it").read()  # there is no other
    with pytest.raises(OSError, match="Input/output error"):
        record.hold()
    disk.write("it.b", b"torn")
    with pytest.raises(OSError, match="Input/output error"):
        Record(disk, "it").read()


def test_slots_that_can_not_be_read_are_read_where_they_are_kept_once_more() -> None:
    disk = WornDisk()
    ledger = Ledger(disk, lambda: 0)
    ledger.change(ledger.now, replace(ledger.now, active=Held("a" * 64, 7)))
    disk.worn = ("slots.a", "slots.b")
    assert read_slots(disk) == ledger.now
    disk.worn = (*disk.worn, "kept.a", "kept.b")
    with pytest.raises(OSError, match="Input/output error"):
        read_slots(disk)


@pytest.mark.parametrize("bad", [{"slots.a"}, {"slots.b"}, {"slots.a", "slots.b"}])
def test_no_older_copy_counts_where_the_youngest_can_not_be_read(bad: set[str]) -> None:
    disk = BadBlocks()
    ledger = Ledger(disk, lambda: 0)
    bundle = "a" * 64
    ledger.change(ledger.now, replace(ledger.now, active=Held(bundle, 7)))
    ledger.change(ledger.now, replace(ledger.now, active=Held(), stopped=(bundle,)))
    stopped = ledger.now
    disk.bad = set(bad)
    assert read_slots(disk) == stopped
    again = Ledger(disk, lambda: 0)
    assert again.now.stopped == (bundle,)
    assert again.now.epoch >= stopped.epoch
    assert again.apply(lambda slots: replace(slots, why="later")) is not None
    disk.bad = set()  # what is still there as it was can be read once more
    assert read_slots(disk) == again.now == Ledger(disk, lambda: 0).now


def test_lost_slots_come_back_without_what_was_under_way() -> None:
    disk = CrashDisk()
    ledger = Ledger(disk, lambda: 0)
    held = Slots(
        active=Held("a" * 64, 7), previous=Held(), staged=Held("b" * 64, 8), stage=Stage.STAGE_ARMED,
        highest_counter=8, stop_number=3,
    )  # fmt: skip
    ledger.change(ledger.now, held)
    for name in ("slots.a", "slots.b"):
        disk.remove(name)
    again = Ledger(disk, lambda: 0)
    assert (again.now.active, again.now.staged, again.now.stage) == (held.active, None, Stage.STAGE_REFUSED)
    assert (again.now.highest_counter, again.now.stop_number) == (8, 3)
    assert again.now.epoch > 2 and again.trouble


def test_a_loop_that_began_before_the_agent_is_no_loss() -> None:
    disk = CrashDisk()
    answer_record(disk).write(Answer(epoch=0, trouble="no slots can be read").to_bytes())
    assert Ledger(disk, lambda: 0).now.why == ""
    for lost in (CrashDisk({"bundles": {"a" * 64: {}}}), CrashDisk()):
        answer_record(lost).write(Answer(epoch=5 if not lost.list("bundles") else 0).to_bytes())
        assert "lost" in Ledger(lost, lambda: 0).now.why


def test_records_that_are_no_records_are_said() -> None:
    disk = CrashDisk({"slots.a": b"x", "slots.b": b""})
    with pytest.raises(RecordLost, match="expected a whole copy, got 2 damaged"):
        slots_record(disk).read()
    assert read_slots(disk) is None
    answer_record(disk).write(b"[]")
    assert read_answer(disk) is None
    with pytest.raises(UpdateError, match="at most"):
        Record(disk, "much").write(b"x" * (MAX_BYTES + 1))


def test_slots_of_an_older_agent_are_read() -> None:
    old = Slots(epoch=3).to_bytes().replace(b'"stop_number": 0, ', b"").replace(b'"tries": 0', b'"more": 0')
    assert Slots.of(old) == Slots(epoch=3)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{" * 9999, b'{"epoch": -1}', b"\xff"])
def test_what_is_no_slots_and_no_answer_is_one_line(content: bytes) -> None:
    for kind in (Slots, Answer):
        with pytest.raises(UpdateError, match="expected what the"):
            kind.of(content)
