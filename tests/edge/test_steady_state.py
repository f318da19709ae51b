"""In steady state the loop leaves nothing behind: no work for the collector, no memory that survives a frame."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import bundle
from edge.drive.reader import DriveReader
from edge.feed import events
from edge.loop import Loop
from edge.samples import Event
from edge.streams import SECOND

from .conftest import DRIVE_S

LAP_NS = int(DRIVE_S * SECOND)


@pytest.fixture(scope="module")
def lap(drive: Path) -> list[Event]:
    loop = Loop(bundle.load())
    with DriveReader(drive) as reader:
        return [fed.event for fed in events(reader, loop.config.streams) if fed.event.row >= 0]


@pytest.fixture
def collector_off() -> Iterator[None]:
    """The heap as `realtime()` leaves it: frozen, the collector switched off."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def endless(lap: list[Event]) -> Iterator[Event]:
    """The drive again and again; every sample is a new object, its stamp and sequence number go on."""
    counts = {row: sum(event.row == row for event in lap) for row in {event.row for event in lap}}
    number = 0
    while True:
        for now_ns, row, sample, size_bytes in lap:
            shift_ns = number * LAP_NS
            moved = sample._replace(stamp_ns=sample.stamp_ns + shift_ns, seq=sample.seq + number * counts[row])
            yield Event(now_ns + shift_ns, row, moved, size_bytes)
        number += 1


def run(loop: Loop, feed: Iterator[Event], frames: int) -> None:
    """Until so many frames are decided; the decisions are let go."""
    left = frames
    for event in feed:
        while loop.due_ns < event.now_ns:
            left -= len(loop.step(None, loop.due_ns))
        for decision in loop.step(event, event.now_ns):
            loop.finished(decision, event.now_ns)
            left -= 1
        if left <= 0:
            return


@pytest.mark.usefixtures("collector_off")
def test_a_thousand_frames_leave_no_cycle_for_the_collector(lap: list[Event]) -> None:
    loop, feed = Loop(bundle.load()), endless(lap)
    run(loop, feed, 200)
    gc.collect()
    run(loop, feed, 1_000)
    assert gc.collect() == 0


@pytest.mark.usefixtures("collector_off")
def test_no_allocation_survives_a_frame(lap: list[Event]) -> None:
    loop, feed = Loop(bundle.load()), endless(lap)
    run(loop, feed, 100)
    for engine in loop.perception.engines.values():
        engine.run = lambda: None  # type: ignore[method-assign]  # what it computes costs time, not memory
    # The interpreter keeps up to 2,000 tuples of each length for reuse; until it has them, frames seem to leave some.
    run(loop, feed, 6_000)
    before = sys.getallocatedblocks()
    run(loop, feed, 12_000)
    # The rings are emptied a capacity at a time, so where in that they are differs: at most some 6,000 blocks.
    assert sys.getallocatedblocks() - before < 12_000 * 0.5
