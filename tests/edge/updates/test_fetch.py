"""Files come whole or not at all: resumed after cuts, bounded in bytes and in time, on full disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import UpdateError
from edge.updates.disk import RealDisk
from edge.updates.fetch import Fetcher, Pace, TryLater, WrongBytes

from .link import CHUNK, Link
from .repositories import SimulatedCloud


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


def test_file_is_there_whole(link: Link) -> None:
    assert link.fetcher.fetch(link.file) == link.part()
    assert link.disk.read(link.part()) == link.content


def test_file_that_is_there_is_not_fetched_again(link: Link) -> None:
    link.fetcher.fetch(link.file)
    link.cloud.fetched.clear()
    link.fetcher.fetch(link.file, {b"x" * 32: "slots.a"})
    assert link.cloud.fetched == []


def test_empty_file_is_there_without_a_call(link: Link) -> None:
    empty = link.holds(b"")
    assert link.disk.read(link.fetcher.fetch(empty)) == b""
    assert link.cloud.fetched == []


def test_cut_off_file_goes_on_where_it_ended(link: Link) -> None:
    link.stream(lambda offset: link.chunks(offset, 5 * CHUNK))
    with pytest.raises(TryLater, match="expected 50000 bytes, got 20480, which are kept"):
        link.fetcher.fetch(link.file)
    link.cloud.stream = None
    link.fetcher = Fetcher(link.disk, link.cloud, link.clock)  # another process
    link.fetcher.fetch(link.file)
    assert [offset for _, offset in link.cloud.fetched] == [0, 5 * CHUNK]
    assert link.disk.read(link.part()) == link.content


def test_link_that_breaks_is_tried_again_with_longer_waits(link: Link) -> None:
    def broken(offset: int) -> Iterator[bytes]:
        yield from link.chunks(offset, offset + CHUNK)
        raise ConnectionResetError("reset\nby peer")

    link.stream(broken)
    waits = []
    for tries in range(1, 6):
        with pytest.raises(TryLater, match="did not come: reset by peer") as later:
            link.fetcher.fetch(link.file)
        assert link.there() == tries * CHUNK
        waits.append(later.value.again_in_s)
    assert all(0 <= wait <= 0.5 * 2 ** (tries + 1) for tries, wait in enumerate(waits))
    assert max(waits) > 1.0


def test_part_that_a_power_cut_tore_is_fetched_anew_once(link: Link) -> None:
    link.disk.make_folder("parts")
    link.disk.write(link.part(), link.content[:CHUNK] + bytes(CHUNK))  # zeros: never reached the disk
    link.fetcher.fetch(link.file)
    assert [offset for _, offset in link.cloud.fetched] == [2 * CHUNK, 0]
    assert link.disk.read(link.part()) == link.content


@pytest.mark.parametrize("excess", [1, 10_000])
def test_part_that_is_too_long_is_dropped(link: Link, excess: int) -> None:
    link.disk.make_folder("parts")
    link.disk.write(link.part(), link.content + bytes(excess))
    link.fetcher.fetch(link.file)
    assert [offset for _, offset in link.cloud.fetched] == [0]
    assert link.disk.read(link.part()) == link.content


def test_other_bytes_are_refused_and_removed(link: Link) -> None:
    link.stream(lambda offset: iter([bytes(len(link.content))]))
    with pytest.raises(WrongBytes, match=r"camera\.onnx: expected the SHA-256"):
        link.fetcher.fetch(link.file)
    assert link.there() == 0


def test_one_wrong_byte_is_refused(link: Link) -> None:
    link.stream(lambda offset: iter([link.content[:-1] + b"!"]))
    with pytest.raises(WrongBytes):
        link.fetcher.fetch(link.file)


def test_endless_data_is_cut_off_at_the_signed_length(link: Link) -> None:
    given: list[int] = []

    def endless(offset: int) -> Iterator[bytes]:
        while True:
            given.append(1)
            yield bytes(CHUNK)

    link.stream(endless)
    with pytest.raises(WrongBytes, match="expected 50000 bytes, got more"):
        link.fetcher.fetch(link.file)
    assert len(given) <= len(link.content) // CHUNK + 1
    assert link.there() <= len(link.content)
    link.cloud.stream = None
    link.fetcher.fetch(link.file)  # what it left behind is found out
    assert link.disk.read(link.part()) == link.content


def test_nothing_is_read_beyond_the_signed_length(link: Link) -> None:
    def more(offset: int) -> Iterator[bytes]:
        yield link.content
        raise AssertionError("was asked for more")

    link.stream(more)
    link.fetcher.fetch(link.file)


def test_endless_empty_chunks_are_cut_off(link: Link) -> None:
    def empty(offset: int) -> Iterator[bytes]:
        while True:
            yield b""

    link.stream(empty)
    with pytest.raises(TryLater, match="expected at least 1024 bytes/s"):
        link.fetcher.fetch(link.file)


def dripping(link: Link, size: int, every_s: float) -> Callable[[int], Iterator[bytes]]:
    def drip(offset: int) -> Iterator[bytes]:
        for start in range(offset, len(link.content), size):
            link.clock.now_s += every_s
            yield link.content[start : start + size]

    return drip


def test_slow_drip_is_cut_off_and_what_came_is_kept(link: Link) -> None:
    link.stream(dripping(link, 100, 1.0))
    began_s = link.clock.now_s
    with pytest.raises(TryLater, match="expected at least 1024 bytes/s over 30 s, got fewer; 3000 are kept"):
        link.fetcher.fetch(link.file)
    assert link.clock.now_s - began_s == 30.0
    assert link.there() == 3000
    link.cloud.stream = None
    link.fetcher.fetch(link.file)
    assert link.disk.read(link.part()) == link.content


def test_drip_after_a_fast_beginning_is_cut_off_too(link: Link) -> None:
    def lured(offset: int) -> Iterator[bytes]:
        yield link.content[:40_000]
        yield from dripping(link, 10, 5.0)(40_000)

    link.stream(lured)
    began_s = link.clock.now_s
    with pytest.raises(TryLater, match="expected at least"):
        link.fetcher.fetch(link.file)
    assert link.clock.now_s - began_s <= 60.0


def test_slow_honest_link_ends_in_one_try(link: Link) -> None:
    """Twice the least rate, with a pause of ten seconds in between: GPRS and a bridge."""

    def slow(offset: int) -> Iterator[bytes]:
        for number, content in enumerate(dripping(link, 2048, 1.0)(offset)):
            link.clock.now_s += 10.0 if number == 12 else 0.0
            yield content

    link.stream(slow)
    link.fetcher.fetch(link.file)
    assert len(link.cloud.fetched) == 1


def test_link_below_the_least_rate_still_ends(link: Link) -> None:
    link.stream(dripping(link, 500, 1.0))
    tries = 0
    while link.there() < link.file.length:
        tries += 1
        try:
            link.fetcher.fetch(link.file)
        except TryLater:
            assert tries < 10
    assert link.disk.read(link.part()) == link.content


def test_file_that_is_no_longer_wanted_is_left(link: Link) -> None:
    fetcher = Fetcher(link.disk, link.cloud, link.clock, is_wanted=lambda: link.there() < 3 * CHUNK)
    with pytest.raises(TryLater, match="no longer wanted just now; 12288 bytes are kept"):
        fetcher.fetch(link.file)


def test_call_ends_with_the_try(link: Link) -> None:
    ended: list[bool] = []

    class Call:
        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            return bytes(len(link.content) + 1)

        def close(self) -> None:
            ended.append(True)

    class Cloud(SimulatedCloud):
        def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
            return Call()

    with pytest.raises(WrongBytes):
        Fetcher(link.disk, Cloud(), link.clock).fetch(link.file)
    assert ended == [True]


def test_full_disk_is_one_line_and_loses_nothing(link: Link) -> None:
    link.stream(lambda offset: link.chunks(offset, 4 * CHUNK))
    with pytest.raises(TryLater):
        link.fetcher.fetch(link.file)
    link.cloud.stream = None

    append = link.disk.append

    def full(name: str, offset: int, content: bytes) -> None:
        append(name, offset, content[:100])
        raise OSError(28, "No space left on device")

    link.disk.append = full  # type: ignore[method-assign]
    with pytest.raises(TryLater, match=r"^camera.onnx: can't be put on board: No space left on device$") as later:
        link.fetcher.fetch(link.file)
    assert later.value.again_in_s >= 0
    link.disk.append = append  # type: ignore[method-assign]
    assert link.disk.read(link.part())[: 4 * CHUNK] == link.content[: 4 * CHUNK]
    link.fetcher.fetch(link.file)
    assert link.disk.read(link.part()) == link.content
    assert [offset for _, offset in link.cloud.fetched] == [0, 4 * CHUNK, 4 * CHUNK + 100]


def test_file_that_the_cloud_refuses_is_refused(link: Link) -> None:
    def refused(offset: int) -> Iterator[bytes]:
        raise UpdateError("the cloud refuses: not found")
        yield b""

    link.stream(refused)
    with pytest.raises(UpdateError, match="not found"):
        link.fetcher.fetch(link.file)


def test_bytes_are_durable_every_so_often(tmp_path: Path) -> None:
    synced: list[int] = []

    class Counting(RealDisk):
        def sync(self, name: str) -> None:
            synced.append(self.size(name) or 0)
            super().sync(name)

    link = Link(tmp_path)
    Fetcher(Counting(tmp_path), link.cloud, link.clock, pace=Pace(sync_bytes=10_000)).fetch(link.file)
    assert synced == [12288, 24576, 36864, 49152, 50000]
