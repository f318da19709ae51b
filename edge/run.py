"""`roadfuse run DRIVE --out RECORDED.mcap`: the loop live, against a real clock, with a drive in the sensors' place.

The drive's messages arrive when they did, paced by the monotonic clock; the loop takes them as fast as it can. What it
took, when, and what it decided, overload included, is recorded: `roadfuse replay --verify` reproduces it bit for bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from edge import bundle as bundles
from edge import config as configs
from edge.campaigns.file import LOOK_S, ProbeFile
from edge.campaigns.file import fed as as_event
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.durable import refuse_output
from edge.errors import ConfigError
from edge.feed import Fed
from edge.loop import Loop
from edge.read_ahead import ReadAhead
from edge.realtime import ordinary, realtime, without_spinning
from edge.recorder import Recorder
from edge.replay import STEP_TIMING, expect_fused
from edge.samples import BundleInUse
from edge.statistics import RunStatistics
from edge.streams import SECOND
from edge.updates.disk import RealDisk
from edge.updates.host import Host

# Half a second of everything a vehicle sends.
INBOX: Final = 2048
_HURRY_NS: Final = 1_000_000
_LONGEST_WAIT_S: Final = 1.0  # whoever waits looks again then


class Inbox:
    """Between the sensors' threads and the loop: bounded; when full the oldest goes, and is counted by topic.

    Attributes:
        error: why nothing more comes, where that is not the end.
    """

    def __init__(self, size: int = INBOX) -> None:
        self._size = size
        self._items: deque[Fed] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self.overflow: Counter[str] = Counter()
        self.error: Exception | None = None

    def put(self, item: Fed) -> None:
        """Never blocks."""
        with self._ready:
            if len(self._items) >= self._size:
                once = topics.SAID_ONCE
                at = next((at for at, kept in enumerate(self._items) if kept.message.topic not in once), 0)
                self.overflow[self._items[at].message.topic] += 1
                del self._items[at]
            self._items.append(item)
            self._ready.notify()

    def get(self, timeout_s: float) -> Fed | None:
        """The oldest item; None when none came in time."""
        with self._ready:
            if not self._items and not self._closed and timeout_s > 0:
                self._ready.wait(min(timeout_s, _LONGEST_WAIT_S))
            return self._items.popleft() if self._items else None

    def close(self) -> None:
        """Nothing more will come."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    @property
    def closed(self) -> bool:
        """Whether nothing more comes."""
        with self._ready:
            return self._closed

    @property
    def over(self) -> bool:
        """Whether all was taken and nothing more comes."""
        with self._ready:
            return self._closed and not self._items


class DriveClock:
    """The vehicle's monotonic clock while a drive plays: starts at the drive's first arrival, runs `speed` times."""

    def __init__(self, first_ns: int, speed: float) -> None:
        self._first_ns = first_ns
        self._speed = speed
        self._started_ns = time.monotonic_ns()

    def __call__(self) -> int:
        """Now, ns."""
        return self._first_ns + int((time.monotonic_ns() - self._started_ns) * self._speed)

    def sleep_until(self, instant_ns: int) -> None:
        """Sleep until the instant."""
        while (ahead_s := self.seconds_until(instant_ns)) > 0:
            time.sleep(min(ahead_s, _LONGEST_WAIT_S))

    def seconds_until(self, instant_ns: int) -> float:
        """Real seconds until the instant."""
        return (instant_ns - self()) / SECOND / self._speed


def live(
    loop: Loop, drive: DriveReader, recorder: Recorder | None, statistics: RunStatistics, speed: float, inbox: Inbox,
    probes: ProbeFile | None = None, host: Host | None = None, cores: Collection[int] = (),
) -> Iterator[Decision]:  # fmt: skip
    """Run the loop in real time over a drive's messages; yields each decision when it is made.

    Args:
        probes: what campaigns look for, looked at between frames by a thread of its own; what the drive recorded of
            campaigns is passed over then.
        host: keeps the loop's bundles as the update agent wants them; what the drive recorded of them is passed over.
        cores: that the process had before `realtime`; what runs beside the loop leaves it its own.

    Raises:
        DriveError: the drive can't be read any further; all before it was decided, and offered to the recorder.
    """
    with ReadAhead(drive, cores=cores) as ahead:
        feed = (fed for fed in ahead.events(loop.config.streams) if not _is_overruled(fed, probes))
        first = next(feed, None)
        if first is None:
            return
        clock = DriveClock(first.event.now_ns, speed)
        if host is not None:
            host.begin(inbox, clock)
        if probes is not None:
            _look(probes, inbox, clock)
            threading.Thread(target=_watch, args=(probes, inbox, clock, cores), name="campaigns", daemon=True).start()
        inbox.put(first)
        source = threading.Thread(target=_play, args=(feed, inbox, clock, cores), name="sensors", daemon=True)
        source.start()
        statistics.start(time.perf_counter_ns())
        batch: list[Fed] = []
        last_ns = 0
        try:
            while not (inbox.over and not loop.waiting):
                fed = inbox.get(clock.seconds_until(loop.due_ns) if last_ns else 1.0)
                now_ns = max(clock(), last_ns + 1)  # each step has an instant of its own
                if fed is None and now_ns < loop.due_ns:
                    continue
                last_ns = now_ns
                statistics.now(now_ns)
                if fed is not None:
                    fed = Fed(fed.event._replace(now_ns=now_ns), fed.message._replace(arrival_ns=now_ns))
                    batch.append(fed)
                decisions = loop.step(None if fed is None else fed.event, now_ns)
                if not decisions:
                    continue
                done_ns = clock()
                for decision in decisions:
                    decision.timings_ns[STEP_TIMING] = done_ns - decision.emitted_ns
                    loop.finished(decision, done_ns)
                    statistics.add(decision)
                if recorder is not None:
                    recorder.offer(batch, decisions, loop.scenes)
                if host is not None:
                    host.saw(batch, decisions)
                batch = []
                yield from decisions
            source.join()
        finally:  # an interrupted run keeps the scene that is open, too
            scene = loop.cutter.finish()
            if recorder is not None:
                recorder.offer(batch, [], [scene] if scene else [])
            statistics.end(time.perf_counter_ns(), loop.accounts(), scene)
    if inbox.error is not None:
        raise inbox.error


def _is_overruled(fed: Fed, probes: ProbeFile | None) -> bool:
    """Whether a message of the drive says what is for somebody else to say here."""
    return isinstance(fed.event.sample, BundleInUse) or (probes is not None and fed.message.topic == topics.CAMPAIGNS)


def _play(feed: Iterator[Fed], inbox: Inbox, clock: DriveClock, cores: Collection[int]) -> None:
    """The sensors: each message arrives when it did."""
    ordinary(cores)
    try:
        for fed in feed:
            if fed.event.now_ns - clock() > _HURRY_NS:
                clock.sleep_until(fed.event.now_ns)
            inbox.put(fed)
    except Exception as error:  # at the thread's top: the loop raises it once it decided what came before
        inbox.error = error
    finally:
        inbox.close()


def _watch(probes: ProbeFile, inbox: Inbox, clock: DriveClock, cores: Collection[int]) -> None:
    """What campaigns look for, whenever that changes."""
    ordinary(cores)
    while not inbox.closed:
        time.sleep(LOOK_S)
        _look(probes, inbox, clock)


def _look(probes: ProbeFile, inbox: Inbox, clock: DriveClock) -> None:
    found = probes.changed()
    if found is not None:
        inbox.put(as_event(found, clock()))


def main(argv: list[str]) -> int:
    """The command."""
    options = _parser().parse_args(argv)
    without_spinning()
    if options.bundle is not None and len(options.bundle) > 1:
        raise ConfigError(f"--bundle: expected one, got {len(options.bundle)}")
    if options.updates is not None and options.bundle is not None:
        _parser().error("--bundle: expected none with --updates, which says what runs")
    settings = configs.load(options.config)
    if not 0 < options.speed < math.inf:
        _parser().error(f"--speed: expected a positive number, got {options.speed:g}")
    statistics = RunStatistics(settings.deadline_ns)
    inbox = Inbox()
    refuse_output(options.out, options.drive)
    with DriveReader(options.drive) as drive, ExitStack() as ends:
        expect_fused(drive, settings.streams)
        facts = {
            "source": os.fsencode(options.drive.name).decode("utf-8", "replace"),
            "mode": "live",
            "speed": f"{options.speed:g}",
        }
        host = None
        if options.updates is not None:
            if not options.updates.is_dir():  # an agent may begin later than the loop
                _say(f"{options.updates}: no updates there yet: the reference bundle runs")
            host = Host(RealDisk(options.updates), settings, options.provider, _say)
        else:
            loop = Loop(
                bundles.load(options.bundle[0] if options.bundle else None),
                settings,
                options.provider,
                time.perf_counter_ns,
            )
            facts["bundle"] = loop.bundle.id
        # Before the host opens: it counts starts, and one that a spool or file in use refuses is no bundle's fault.
        recorder = Recorder(
            options.out, options.spool, settings.scenes, facts, lossless=False,
            opinion=None if host is None else host.opinion,
        )  # fmt: skip
        complete = False
        try:
            if host is not None:
                loop = host.open(time.perf_counter_ns)
                ends.callback(host.close)
                recorder.describe({"bundle": loop.bundle.id})
            cores = os.sched_getaffinity(0)
            measures = realtime(beside=[loop.lane.submit(threading.get_native_id).result()]) if options.realtime else []
            probes = None if options.probes is None else ProbeFile(options.probes, say=_say)
            for _ in live(loop, drive, recorder, statistics, options.speed, inbox, probes, host, cores):
                pass
            complete = True
        finally:
            recorder.close(complete=complete, statistics=statistics.as_dict() if statistics.ended_ns else None)
    result = {
        **statistics.as_dict(),
        "inbox_overflow": dict(inbox.overflow),
        "recorder_dropped": recorder.dropped_batches,
        "clips": [str(clip) for clip in recorder.clips],
        "realtime": [dataclasses.asdict(measure) for measure in measures],
    }
    if options.json:
        print(json.dumps(result))
    else:
        _print(result, options.out)
    return 0


def _say(line: str) -> None:
    print(f"roadfuse run: {line}", file=sys.stderr, flush=True)


def _print(result: dict[str, object], out: Path | None) -> None:
    for measure in result["realtime"]:  # type: ignore[attr-defined]
        print(f"{measure['name']}: {measure['refusal'] or 'granted'}", file=sys.stderr)
    for name in ("frames", "coverage", "degraded_frames", "overloaded_frames", "scenes", "latency_ms", "sha256"):
        print(f"{name:<18} {result[name]}")
    if out is not None:
        print(f"recorded           {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse run",
        description="Run the loop live, paced by a real clock, with a drive in the sensors' place, and record "
        "what happened; `roadfuse replay RECORDED --verify` reproduces it bit for bit.",
    )
    parser.add_argument("drive", type=Path, help="drive to play")
    parser.add_argument("--out", type=Path, help="drive to record, with the decisions")
    parser.add_argument("--spool", type=Path, help="folder for the clips of hard scenes")
    parser.add_argument("--bundle", type=Path, action="append", help="bundle folder (default: the reference bundle)")
    parser.add_argument("--updates", type=Path, help="folder of the update agent, which says what bundle runs")
    parser.add_argument("--config", type=Path, help="TOML settings of the loop")
    parser.add_argument("--probes", type=Path, help="what campaigns look for: the file that the uplink keeps")
    parser.add_argument("--provider", default="cpu", help="cpu, cuda, tensorrt: of ONNX Runtime; trt: native plans")
    parser.add_argument("--speed", type=float, default=1.0, help="multiple of real time (default 1)")
    parser.add_argument("--realtime", action="store_true", help="FIFO scheduling, a core of its own, frozen garbage")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
