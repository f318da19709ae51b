"""What the loop leaves behind in steady state: garbage collections, and memory that survives a frame."""

from __future__ import annotations

import gc
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.drive.reader import DriveReader
from edge.feed import events
from edge.loop import Loop
from edge.samples import Event
from edge.streams import SECOND

LAP_S = 10
_WARM_UP_FRAMES = 600


def steady_state(frames: int) -> dict[str, Any]:
    """Run the reference bundle's loop over an endless drive and count what `frames` frames leave.

    The collector stays switched on, over a frozen heap, so that what would trigger it shows.
    """
    with tempfile.TemporaryDirectory() as folder:
        lap = simulated(Path(folder) / "drive.mcap")
    loop = Loop(bundles.load())
    feed = endless(lap)
    collections = [0, 0, 0]

    def count(phase: str, facts: dict[str, int]) -> None:
        collections[facts["generation"]] += phase == "start"

    run(loop, feed, _WARM_UP_FRAMES)
    gc.collect()
    gc.freeze()
    gc.callbacks.append(count)
    before = sys.getallocatedblocks()
    run(loop, feed, frames)
    blocks = sys.getallocatedblocks() - before
    gc.callbacks.remove(count)
    gc.disable()
    tracemalloc.start()
    run(loop, feed, 200)
    traced = tracemalloc.get_traced_memory()[0]
    run(loop, feed, 1_000)
    grown = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    gc.enable()
    gc.unfreeze()
    return {
        "frames": frames,
        "garbage_collections_per_10000_frames": sum(collections) * 10_000 / frames,
        "of_generation_0_1_2": collections,
        "surviving_blocks_per_frame": round(blocks / frames, 5),
        "surviving_bytes_per_frame": round(grown / 1_000, 2),
    }


def simulated(path: Path) -> list[Event]:
    """The events of a simulated drive."""
    from export.world.command import main as simulate

    simulate(["--seed", "1", "--seconds", str(LAP_S), "--scenario", "mixed", "--out", str(path), "--json"])
    loop = Loop(bundles.load())
    with DriveReader(path) as drive:
        return [fed.event for fed in events(drive, loop.config.streams) if fed.event.row >= 0]


def endless(lap: list[Event]) -> Iterator[Event]:
    """The drive again and again: stamps and sequence numbers go on, samples are new objects each time."""
    counts = {row: sum(event.row == row for event in lap) for row in {event.row for event in lap}}
    number = 0
    while True:
        shift_ns = number * LAP_S * SECOND
        for now_ns, row, sample, size_bytes in lap:
            moved = sample._replace(stamp_ns=sample.stamp_ns + shift_ns, seq=sample.seq + number * counts[row])
            yield Event(now_ns + shift_ns, row, moved, size_bytes)
        number += 1


def run(loop: Loop, feed: Iterator[Event], frames: int) -> None:
    """Take events until so many frames were decided; the decisions are dropped."""
    left = frames
    for event in feed:
        while loop.due_ns < event.now_ns:
            left -= len(loop.step(None, loop.due_ns))
        decisions = loop.step(event, event.now_ns)
        for decision in decisions:
            loop.finished(decision, event.now_ns)
        left -= len(decisions)
        if left <= 0:
            return
