"""Simulated sensors: seven streams with their rates, delays and faults, and the drivers that feed them to a Sync."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from edge.frameset import FrameSet, Pick
from edge.streams import MS, SECOND, STREAMS, Policy, Stream
from edge.sync import Sync

ODOMETRY = Stream("odometry", "/odometry", Policy.HOLD, 60, 20 * MS, 200 * MS, 300 * MS, ring=64)
TABLE = (*STREAMS, ODOMETRY)
ROW = {stream.name: row for row, stream in enumerate(TABLE)}
START_NS = 1_000 * SECOND
Event = tuple[int, int, Any]  # now_ns, row, sample


@dataclass(frozen=True, slots=True)
class Tick:
    """A sample of which only instant and number matter."""

    stamp_ns: int
    seq: int


@dataclass(frozen=True)
class Source:
    """One sensor: how often it captures, how long its samples travel, and where it is silent.

    Args:
        stall: between these two instants nothing arrives; all of it comes in a burst at the end.
        dead: between these two instants nothing is captured, though the numbers go on.
    """

    rate_hz: float
    delay_ms: float
    jitter_ms: float
    lost: float = 0.0
    stall: tuple[int, int] = (0, 0)
    dead: tuple[int, int] = (0, 0)

    def events(self, row: int, seed: int, start_ns: int, seconds: float) -> Iterator[Event]:
        rng = random.Random(f"{seed}/{row}")
        phase_ns = rng.random() * SECOND / self.rate_hz
        for seq in range(int(seconds * self.rate_hz)):
            stamp_ns = start_ns + int(phase_ns + seq * SECOND / self.rate_hz)
            now_ns = stamp_ns + int(max(0.2, rng.gauss(self.delay_ms, self.jitter_ms)) * MS)
            is_lost = rng.random() < self.lost
            if is_lost or self.dead[0] <= stamp_ns < self.dead[1]:
                continue
            if self.stall[0] <= now_ns < self.stall[1]:
                now_ns = self.stall[1]
            yield now_ns, row, Tick(stamp_ns, seq)


SOURCES = {
    "camera": Source(20, 20, 3),
    "audio": Source(50, 27, 2),
    "imu": Source(200, 2, 1),
    "gnss": Source(10, 60, 20),
    "vehicle": Source(100, 4, 2),
    "lidar": Source(10, 45, 8),
    "odometry": Source(40, 5, 2),
}


@dataclass
class Vehicle:
    """All sensors of a vehicle; name a stream to change its source, None to take it away."""

    sources: dict[str, Source] = field(default_factory=lambda: dict(SOURCES))
    start_ns: int = START_NS
    seed: int = 1

    def change(self, *names: str, **changes: Any) -> Vehicle:
        for name in names or tuple(self.sources):
            self.sources[name] = replace(self.sources[name], **changes)
        return self

    def without(self, *names: str) -> Vehicle:
        for name in names:
            del self.sources[name]
        return self

    def events(self, seconds: float) -> list[Event]:
        events = [
            event
            for name, source in self.sources.items()
            for event in source.events(ROW[name], self.seed, self.start_ns, seconds)
        ]
        return by_arrival(events)


def by_arrival(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event[0], event[1], event[2].seq))


def feed(sync: Sync, events: Iterable[Event], until_ns: int = 0) -> Iterator[FrameSet]:
    """As designed: each FrameSet leaves at the very instant it is due; time runs on to `until_ns`."""
    pushes = sync.pushes
    for now_ns, row, sample in events:
        yield from _due(sync, now_ns)
        if pushes[row](sample, now_ns):
            while (frames := sync.pop(now_ns)) is not None:
                yield frames
    yield from _due(sync, until_ns)


def play(events: Iterable[Event], sync: Sync | None = None) -> list[FrameSet]:
    """A whole drive: when nothing comes any more, the frames that wait leave as they are due."""
    sync = sync or Sync(TABLE)
    frames = list(feed(sync, events))
    while sync.camera.stamps:
        frames += feed(sync, (), sync.due_ns)
    return frames


def _due(sync: Sync, now_ns: int) -> Iterator[FrameSet]:
    while sync.due_ns <= now_ns:
        due_ns = sync.due_ns
        frames = sync.pop(due_ns)
        if frames is not None:
            yield frames
        else:
            assert sync.due_ns > due_ns, "time would stand still"


def unaccounted(sync: Sync, came: list[int]) -> dict[str, int]:
    """By stream: samples that came and are neither used, dropped nor buffered."""
    accounts = sync.accounts()
    for name, account in accounts.items():
        assert min(account.values()) >= 0, (name, account)
    differences = {name: came[row] - sum(accounts[name].values()) for name, row in ROW.items()}
    return {name: difference for name, difference in differences.items() if difference}


def best(stream: Stream, arrived: list[Any], frame_ns: int) -> Pick:
    """What the policy takes from all that has arrived, by brute force."""
    absent = Pick((), 0, "absent")
    arrived = sorted(arrived, key=lambda sample: (sample.stamp_ns, sample.seq))
    before = [sample for sample in arrived if sample.stamp_ns <= frame_ns]
    after = [sample for sample in arrived if frame_ns < sample.stamp_ns <= frame_ns + stream.ahead_ns]
    age_ns = frame_ns - before[-1].stamp_ns if before else 1 << 62
    if stream.policy is Policy.WINDOW:
        window = tuple(sample for sample in before if sample.stamp_ns > frame_ns - stream.window_ns)
        return Pick(window, age_ns, "") if age_ns <= stream.tolerance_ns else absent
    if stream.policy is Policy.INTERPOLATE and age_ns and after:
        ahead_ns = after[0].stamp_ns - frame_ns
        if age_ns <= stream.tolerance_ns:
            return Pick((before[-1], after[0]), age_ns if age_ns <= ahead_ns else -ahead_ns, "")
        return Pick((after[0],), -ahead_ns, "")
    if stream.policy is Policy.NEAREST and after and after[0].stamp_ns - frame_ns < age_ns:
        return Pick((after[0],), frame_ns - after[0].stamp_ns, "")
    return Pick((before[-1],), age_ns, "") if age_ns <= stream.tolerance_ns else absent
