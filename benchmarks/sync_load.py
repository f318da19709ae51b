"""The loads of the synchronisation benchmark: seven streams, 430 messages a second, clean and faulty."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge.streams import MS, SECOND, STREAMS, Policy, Stream

ODOMETRY: Final = Stream("odometry", "/odometry", Policy.HOLD, 60, 20 * MS, 200 * MS, 300 * MS, ring=64)
TABLE: Final = (*STREAMS, ODOMETRY)
START_NS: Final = 1_000 * SECOND


@dataclass(frozen=True, slots=True)
class Message:
    """What a synchroniser looks at."""

    stamp_ns: int
    seq: int


Event = tuple[int, int, Message]  # arrival, row of the table, message


@dataclass(frozen=True)
class Source:
    """A sensor: rate, delivery delay (normal), and its faults.

    Args:
        duplicated: share of messages that come twice, the second time up to 100 ms later.
        silent_after_s: nothing is captured after this.
        stall_every_s: so often nothing arrives for 400 ms, and then all at once.
    """

    rate_hz: float
    delay_ms: float
    jitter_ms: float
    lost: float = 0.0
    duplicated: float = 0.0
    silent_after_s: float = 1e9
    stall_every_s: float = 0.0


CLEAN: Final = {
    "camera": Source(20, 20, 3),
    "audio": Source(50, 27, 2),
    "imu": Source(200, 2, 1),
    "gnss": Source(10, 60, 20),
    "vehicle": Source(100, 4, 2),
    "lidar": Source(10, 45, 8),
    "odometry": Source(40, 5, 2),
}
STALL_NS: Final = 400 * MS


def _changed(name: str, **changes: float) -> dict[str, Source]:
    return {**CLEAN, name: replace(CLEAN[name], **changes)}


LOADS: Final = {
    "clean": CLEAN,
    "lidar silent": _changed("lidar", silent_after_s=1.0),
    "imu doubled, crossed": _changed("imu", duplicated=0.1, jitter_ms=12.0),
    "hiccups of 400 ms": {name: replace(source, stall_every_s=5.0) for name, source in CLEAN.items()},
    "camera drops 10 %": _changed("camera", lost=0.1),
}


def events(sources: dict[str, Source], seconds: float, seed: int = 1) -> list[Event]:
    """All messages in order of arrival."""
    found = [
        event
        for row, stream in enumerate(TABLE)
        for event in _delivered(sources[stream.name], row, random.Random(f"{seed}/{row}"), seconds)
    ]
    return sorted(found, key=lambda event: (event[0], event[1], event[2].seq))


def write(path: Path, load: list[Event]) -> None:
    """For a peer in another process: a line a message."""
    path.write_text("".join(f"{now_ns} {row} {message.stamp_ns} {message.seq}\n" for now_ns, row, message in load))


def _delivered(source: Source, row: int, rng: random.Random, seconds: float) -> Iterator[Event]:
    rate_hz = source.rate_hz * rng.uniform(0.99, 1.01)  # no two clocks agree: all phases between streams come up
    phase_s = rng.random() / rate_hz
    for seq in range(int(seconds * rate_hz)):
        at_s = phase_s + seq / rate_hz
        message = Message(START_NS + int(at_s * SECOND), seq)
        arrival_ns = message.stamp_ns + int(max(0.2, abs(rng.gauss(source.delay_ms, source.jitter_ms))) * MS)
        if rng.random() < source.lost or at_s > source.silent_after_s:
            continue
        yield _stalled(arrival_ns, source), row, message
        if rng.random() < source.duplicated:
            yield _stalled(arrival_ns + int(rng.random() * 100 * MS), source), row, message


def _stalled(arrival_ns: int, source: Source) -> int:
    if not source.stall_every_s:
        return arrival_ns
    every_ns = int(source.stall_every_s * SECOND)
    since_ns = (arrival_ns - START_NS) % every_ns
    return arrival_ns + STALL_NS - since_ns if since_ns < STALL_NS < arrival_ns - START_NS else arrival_ns
