"""Replay: a recorded drive through the very same loop.

Two ways. *As designed* recomputes: time is the drive's own, a frame leaves at the instant when it is due, nothing is
ever overloaded. *As it happened* repeats a recorded run: each step at the instant at which it was taken, with the time
that it took, so that lateness and overload come out as they did. Neither depends on the speed of this machine.

Where a recorded run changed bundles between frames, a replay that has all of them changes with it; *as designed* with
one bundle alone, that one decides every frame.

    from edge.replay import replay
    for decision in replay("drive.mcap"):
        print(decision.stamp_ns, decision.hardness)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypeAlias

from google.protobuf.message import DecodeError

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.campaigns.file import first
from edge.campaigns.probe import ProbeSet
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import DriveDamaged, DriveError, DriveFormatError
from edge.feed import Fed
from edge.loop import Loop, LoopConfig
from edge.perception import Perception
from edge.read_ahead import ReadAhead
from edge.recorder import Recorder
from edge.ring import NEVER
from edge.samples import BundleInUse
from edge.statistics import RunStatistics
from edge.streams import Stream
from edge.updates.health import ENGINE_ERROR
from edge.updates.in_use import parse_in_use
from roadfuse.v1 import decision_pb2

Mode = Literal["designed", "happened"]
Which: TypeAlias = Bundle | Path | str | None
STEP_TIMING = "step"
_MOST_HELD: Final = 256  # events, while the next picture is looked for
# Loop and lane take a processor each; of two, the reader has what they leave. Where other work leaves nothing, it still
# gets a third of what each of them gets, by the kernel's weights.
_READER_NICENESS: Final = 5


def replay(
    drive: Path | str, bundle: Which | Sequence[Which] = None, *, mode: Mode = "designed", speed: float | None = None
) -> Iterator[Decision]:
    """The decisions of a drive, one a camera frame, in order.

    Args:
        drive: an MCAP drive.
        bundle: a bundle, its folder, or None for the reference bundle; several, to follow the drive's swaps.
        mode: "designed" recomputes; "happened" repeats the run whose decisions the drive carries.
        speed: multiple of real time; None as fast as it goes. Changes no decision.

    Raises:
        DriveError, BundleError: the drive or the bundle can't be used.
    """
    with Replay(drive, bundle, mode=mode, speed=speed) as run:
        yield from run


class Replay:
    """One replay of one drive; iterate over it for the decisions, then read `statistics`.

    Args:
        drive, bundle, mode, speed: as in `replay`.
        config: of the loop.
        recorder: gets all that passes; None records nothing.
        probes: what campaigns look for from the first event on, instead of what the drive recorded of that.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: native TensorRT.
        on_damage: called with a damage in the drive, which is then skipped; None raises it after the last frame before.
        clock: for timings and pacing, ns.

    Attributes:
        statistics: of the run so far.
    """

    def __init__(
        self,
        drive: Path | str,
        bundle: Which | Sequence[Which] = None,
        *,
        mode: Mode = "designed",
        speed: float | None = None,
        config: LoopConfig | None = None,
        recorder: Recorder | None = None,
        probes: ProbeSet | None = None,
        provider: str = "cpu",
        on_damage: Callable[[DriveDamaged], None] | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        several = list(bundle) if isinstance(bundle, Sequence) and not isinstance(bundle, str) else [bundle]
        given = [one if isinstance(one, Bundle) else bundles.load(one) for one in several]
        self._clock = clock
        self._speed = speed
        self._recorder = recorder
        self._probes = probes
        self.drive = DriveReader(drive, on_damage)
        self._ahead = ReadAhead(self.drive, _READER_NICENESS)  # its process starts beside the loading of the engines
        try:
            swaps = Swaps(self.drive, given) if mode == "happened" or len(given) > 1 else None
            self._follows = swaps is not None and bool(swaps.ids)
            self.bundle = given[0] if swaps is None else swaps.first
            self._happened = None if mode != "happened" or swaps is None else Happened(self.drive, swaps.bundles)
            self.loop = Loop(self.bundle, config, provider, clock)
            for other in () if swaps is None else swaps.others():
                self.loop.charge.bundles.hold(Perception(other, self.loop.config.streams, provider))
            if self._happened is not None:
                self.loop.charge.failing = self._happened.failing
            expect_fused(self.drive, self.loop.config.streams)
        except BaseException:
            self._ahead.close()
            self.drive.close()
            raise
        self.statistics = RunStatistics(self.loop.config.deadline_ns)
        self._batch: list[Fed] = []  # since the last decision, for the recorder

    def record(self, recorder: Recorder) -> None:
        """Record the run; to be said before it begins."""
        self._recorder = recorder

    def recorded(self, index: int) -> bytes | None:
        """The recorded decision (serialised) that decision `index` repeats; None if there was none."""
        return None if self._happened is None else self._happened.recorded.get(index)

    def is_expected(self, index: int) -> bool:
        """Whether the recording would have decision `index`: of a run that was killed the last ones are lost."""
        return self.drive.complete or self._happened is None or index <= self._happened.last

    def unrepeated(self) -> int:
        """Recorded decisions that this run did not come to."""
        return 0 if self._happened is None else max(len(self._happened.recorded) - self.statistics.frames, 0)

    def clips(self) -> list[str]:
        """Clips that were written to the spool."""
        return [] if self._recorder is None else [str(clip) for clip in self._recorder.clips]

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()
        self.drive.close()
        if self._recorder is not None:
            ended = self.statistics.ended_ns != 0
            self._recorder.close(complete=kind is None, statistics=self.statistics.as_dict() if ended else None)

    def __iter__(self) -> Iterator[Decision]:
        self.statistics.start(self._clock())
        damage: DriveDamaged | None = None
        loop, statistics = self.loop, self.statistics
        try:
            for fed in self._events():
                event = fed.event
                now_ns = event.now_ns
                if self._speed is not None:
                    self._pace(now_ns)
                if loop.due_ns < now_ns or self._happened is not None:
                    yield from self._until(now_ns)
                statistics.now(now_ns)
                if self._recorder is not None:
                    self._batch.append(fed)
                decisions = loop.step(event, now_ns)
                if decisions:
                    yield from self._finish(decisions)
            yield from self._drain()
        except DriveDamaged as error:  # what came before it gets its decisions first
            damage = error
            yield from self._drain()
        finally:  # an interrupted run keeps the scene that is open, too
            self._end()
        if damage is not None:
            raise damage

    def _events(self) -> Iterator[Fed]:
        events = self._ahead.events(self.loop.config.streams, messages=self._recorder is not None)
        if not self._follows:
            events = (fed for fed in events if not isinstance(fed.event.sample, BundleInUse))
        events = self._with_foresight(events)
        return events if self._probes is None else first(self._probes, events)

    def _with_foresight(self, events: Iterator[Fed]) -> Iterator[Fed]:
        """The same events; the loop knows of each picture before the one before it arrives."""
        held: list[Fed] = []
        error: DriveError | None = None
        try:
            for fed in events:
                if not fed.event.row or len(held) == _MOST_HELD:
                    self.loop.coming = fed.event.sample if not fed.event.row else None
                    yield from held
                    held.clear()
                held.append(fed)
        except DriveError as found:  # what came before it is first
            error = found
        self.loop.coming = None
        yield from held
        if error is not None:
            raise error

    def _until(self, now_ns: int) -> Iterator[Decision]:
        """The steps that time alone brings before `now_ns`."""
        loop = self.loop
        if self._happened is not None:
            for tick_ns in self._happened.ticks_before(now_ns):
                yield from self._finish(loop.step(None, tick_ns))
            return
        while loop.due_ns < now_ns and self.statistics.last_now_ns:
            yield from self._finish(loop.step(None, max(loop.due_ns, self.statistics.last_now_ns)))

    def _drain(self) -> Iterator[Decision]:
        """The frames that still wait when the drive is over, each when it is due."""
        loop = self.loop
        if self._happened is not None:
            yield from self._until(NEVER)
            return
        while loop.waiting:
            yield from self._finish(loop.step(None, max(loop.due_ns, self.statistics.last_now_ns)))

    def _finish(self, decisions: list[Decision]) -> list[Decision]:
        for decision in decisions:
            timings_ns = {} if self._happened is None else self._happened.timings_ns(decision.index)
            self.loop.finished(decision, decision.emitted_ns + timings_ns.get(STEP_TIMING, 0), timings_ns)
            self.statistics.add(decision)
        if self._recorder is not None:
            self._recorder.offer(self._batch, decisions, self.loop.scenes)
            self._batch = []
        return decisions

    def _end(self) -> None:
        scene = self.loop.cutter.finish()
        if self._recorder is not None:
            self._recorder.offer(self._batch, [], [scene] if scene else [])
            self._batch = []
        self.statistics.end(self._clock(), self.loop.accounts(), scene)

    def _pace(self, now_ns: int) -> None:
        assert self._speed is not None
        statistics = self.statistics
        if not statistics.first_now_ns:
            return
        wanted_ns = statistics.started_ns + (now_ns - statistics.first_now_ns) / self._speed
        ahead_s = (wanted_ns - self._clock()) / 1e9
        if ahead_s > 0.0005:
            time.sleep(ahead_s)


def expect_fused(drive: DriveReader, streams: Sequence[Stream]) -> None:
    """Refuse a drive that has nothing for the loop.

    Raises:
        DriveFormatError: none of the streams is in it.
    """
    fused = {stream.topic for stream in streams}
    if not fused & drive.topics:
        raise DriveFormatError(
            f"{drive.path}: expected a stream of {', '.join(sorted(fused))}, "
            f"got {', '.join(sorted(drive.topics)) or 'no stream at all'}"
        )


def _said(drive: DriveReader, topic: str) -> Iterator[DriveMessage]:
    """What a drive says on a topic, ahead of its events; damage is told of when these come to it."""
    skip = drive.on_damage is not None
    with DriveReader(drive.path, (lambda _: None) if skip else None) as reader, suppress(DriveDamaged):
        yield from reader.messages(topics=[topic])


class Swaps:
    """Which bundles a drive names, and those to decide it with.

    Args:
        given: with the reference bundle, which comes with roadfuse, these are all that there are.

    Attributes:
        ids: that the drive names; none where it never changed bundles.
        first: to begin with.
        bundles: by id.

    Raises:
        DriveFormatError: the drive names one that is not given.
    """

    def __init__(self, drive: DriveReader, given: Sequence[Bundle]) -> None:
        self.bundles = {one.id: one for one in given}
        self.first = given[0]
        self.ids: list[str] = []
        if topics.BUNDLE not in drive.topics:
            return
        for message in _said(drive, topics.BUNDLE):
            in_use = parse_in_use(message.payload)
            named = () if in_use is None else (in_use.bundle_id, in_use.previous_id)
            self.ids += [one for one in named if one and one not in self.ids]
        if set(self.ids) - set(self.bundles):
            reference = bundles.load(None)
            self.bundles.setdefault(reference.id, reference)
        for one in self.ids:
            if one not in self.bundles:
                raise DriveFormatError(
                    f"{drive.path}: expected bundle {one}, which the drive changes to (--bundle, once for each), "
                    f"got {', '.join(other[:12] for other in self.bundles)}"
                )
        if self.ids:
            self.first = self.bundles[self.ids[0]]

    def others(self) -> list[Bundle]:
        """All that have to be open beside the first."""
        return [self.bundles[one] for one in self.ids if one != self.first.id]


class Happened:
    """The steps of a recorded run that time alone brought, and how long each decision took.

    Args:
        bundles: by id, that may have decided.

    Attributes:
        failing: index of a decision -> why an engine of the bundle in use failed at it.
        recorded: index of a decision -> the decision, serialised.
        last: the highest index.

    Raises:
        DriveFormatError: the drive carries no decisions, or another bundle's.
    """

    def __init__(self, drive: DriveReader, bundles: Mapping[str, Bundle]) -> None:
        self._ticks: list[int] = []
        self._timings_ns: dict[int, dict[str, int]] = {}
        self.failing: dict[int, str] = {}
        self._last_event_ns = -1
        self.recorded: dict[int, bytes] = {}
        for message in _said(drive, topics.DECISION):
            try:
                decision = decision_pb2.Decision.FromString(message.payload)
            except DecodeError as error:
                raise DriveFormatError(f"{drive.path}: expected a decision, got {error}") from None
            if decision.bundle_id not in bundles:
                raise DriveFormatError(
                    f"{drive.path}: expected decisions of bundle {', '.join(one[:12] for one in bundles)}, "
                    f"got {decision.bundle_id[:12]}"
                )
            self._ticks.append(decision.emitted_ns)
            self._timings_ns[decision.index] = {timing.stage: timing.elapsed_ns for timing in decision.timings}
            if decision.put_back.why.startswith(ENGINE_ERROR):
                self.failing[decision.index] = decision.put_back.why
            self.recorded[decision.index] = message.payload
        if not self.recorded:  # nothing to repeat, and nothing that a verification could compare
            raise DriveFormatError(f"{drive.path}: expected recorded decisions ({topics.DECISION}), got none")
        self.last = max(self.recorded)
        self._ticks.reverse()

    def ticks_before(self, now_ns: int) -> Iterator[int]:
        """Steps between the last event and the one at `now_ns` (whose own instants are theirs)."""
        ticks = self._ticks
        while ticks and ticks[-1] < now_ns:
            tick_ns = ticks.pop()
            if tick_ns > self._last_event_ns:
                self._last_event_ns = tick_ns
                yield tick_ns
        self._last_event_ns = max(self._last_event_ns, now_ns)

    def timings_ns(self, index: int) -> dict[str, int]:
        """How long the decision and its stages took when it was made."""
        return self._timings_ns.get(index, {})
