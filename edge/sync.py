"""Synchronisation: samples in, in whatever order they arrive; FrameSets out, one a camera frame, by its deadline.

The camera paces. A frame leaves at the earliest of

    settled   nothing that may still arrive, if each stream keeps its promises, would change what it takes
    value     what is still missing is beyond its promise, and waiting on is not worth it
    deadline  capture + deadline

so what it takes does not depend on the order of arrival within the streams' lateness. A frame that never comes gets its
FrameSet all the same: where the camera is silent or drops a frame, a metronome at its rate keeps the pace.

Sensor time decides what is fused; `now_ns`, given by the caller and never read from a clock here, when to stop waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Final

from edge.camera_ring import CameraRing
from edge.choices import ring_for
from edge.frameset import EmitReason, FrameSet
from edge.metronome import PAUSE_NS, Metronome
from edge.ring import LONG_AGO, NEVER, Ring
from edge.streams import DEADLINE_NS, STREAMS, Stream, validate

_SETTLED: Final = EmitReason.SETTLED
_DEADLINE: Final = EmitReason.DEADLINE
_VALUE: Final = EmitReason.VALUE


class Sync:
    """The synchroniser of one vehicle.

    Hand each sample, as it arrives, to `pushes[row](sample, now_ns)`; where that gives True, and whenever `due_ns` has
    come, call `pop` until it gives None.

    Args:
        streams: the table; its first row paces.
        deadline_ns: a frame leaves at most this long after its capture.

    Raises:
        ConfigError: the table would lose samples or never settle.

    Attributes:
        due_ns: the next instant at which `pop` may give something without a push; after a `pop` that gave None it is
            later than that pop.
    """

    def __init__(self, streams: tuple[Stream, ...] = STREAMS, deadline_ns: int = DEADLINE_NS) -> None:
        validate(streams, deadline_ns)
        self.streams = streams
        self.deadline_ns = deadline_ns
        self.camera = CameraRing(streams[0])
        self.others = [ring_for(stream) for stream in streams[1:]]
        self._takes = [(ring.choice.take, ring) for ring in self.others]
        self.metronome = Metronome(streams[0], deadline_ns)
        self.due_ns = NEVER
        self._asleep = True  # until something arrives: at the start, and while the whole recording pauses
        # Whoever may hold a frame back longest is asked first, so that the frame is looked at seldom.
        self._slowest_first = sorted(self.others, key=lambda ring: -ring.stream.lateness_ns - ring.stream.ahead_ns)
        self._patient = [(ring, ring.patience) for ring in self.others if ring.patience is not None]
        self._blocker: Ring | None = None  # the ring that the waiting frame waits for

    @property
    def pushes(self) -> list[Callable[[Any, int], bool]]:
        """`push(sample, now_ns)` of each row of the table."""
        others = [ring.push if ring.patience is None else ring.push_and_learn for ring in self.others]
        return [self.camera.push, *map(_own_copy, others)]

    def refuse(self, row: int, reason: str) -> None:
        """Count a sample that can't be used at all."""
        (self.camera, *self.others)[row].dropped[reason] += 1

    def accounts(self) -> dict[str, dict[str, int]]:
        """By stream: used, buffered, and dropped by reason; their sum is what was pushed or refused."""
        return {ring.stream.name: ring.accounts() for ring in (self.camera, *self.others)}

    def pop(self, now_ns: int) -> FrameSet | None:
        """The next FrameSet that is to leave now; None if none is."""
        if self._asleep:
            self._wake(now_ns)
        camera, metronome = self.camera, self.metronome
        if not camera.stamps:
            return self._pop_overdue(now_ns)
        frame_ns = camera.stamps[0]
        if frame_ns > metronome.skip_ns and metronome.skipped(frame_ns, camera.samples[0].seq):
            return self._pop_skipped(now_ns)
        reason = self._verdict(frame_ns, frame_ns - 1, now_ns)
        if reason is None:
            return None
        frame = camera.leave()
        metronome.beat(frame_ns, frame.seq, now_ns)
        self._rest(now_ns)
        return FrameSet(
            frame_ns, frame, frame.seq, now_ns, reason, [take(ring, frame_ns) for take, ring in self._takes]
        )

    def _pop_overdue(self, now_ns: int) -> FrameSet | None:
        """No frame waits: the instant of one that should have come, once it is overdue."""
        metronome = self.metronome
        if now_ns < metronome.due_ns:
            self.due_ns = metronome.due_ns
            return None
        if max(ring.newest_ns for ring in (self.camera, *self.others)) + PAUSE_NS <= now_ns:
            self._sleep()
            return None
        return self._miss(metronome.expected_ns, _DEADLINE, now_ns)

    def _pop_skipped(self, now_ns: int) -> FrameSet | None:
        """A frame waits before which one is missing: the instant of that one, once it is sure not to come."""
        instant_ns, due_ns = self.metronome.expected_ns, self.metronome.due_ns
        reason = self._verdict(instant_ns, due_ns - self.camera.lateness_ns, now_ns)
        return self._miss(instant_ns, reason, now_ns) if reason else None

    def _miss(self, instant_ns: int, reason: EmitReason, now_ns: int) -> FrameSet:
        self.camera.miss(instant_ns)
        self.metronome.miss(instant_ns, now_ns)
        self._rest(now_ns)
        picks = [take(ring, instant_ns) for take, ring in self._takes]
        return FrameSet(instant_ns, None, self.metronome.last_seq, now_ns, reason, picks, "silent")

    def _verdict(self, frame_ns: int, camera_needs_ns: int, now_ns: int) -> EmitReason | None:
        """Why the frame leaves now; None (and `due_ns` set) if it waits.

        Args:
            camera_needs_ns: no frame captured up to this instant may be on its way.
        """
        if now_ns >= frame_ns + self.deadline_ns:
            return _DEADLINE
        if self._blocker is not None:
            self._blocker.wake_ns = NEVER
            self._blocker = None
        if self.camera.missing:
            until_ns = self.camera.holds_until(camera_needs_ns, now_ns)
            if until_ns:
                self.due_ns = min(until_ns, frame_ns + self.deadline_ns)
                return None
        for ring in self._slowest_first:
            if frame_ns + ring.promise_ns <= now_ns or (
                frame_ns - ring.slack_ns <= ring.newest_ns and not ring.missing
            ):
                continue  # the common cases, cheaply
            until_ns = ring.holds_until(frame_ns, now_ns)
            if until_ns:
                self._wait(ring, frame_ns, until_ns)
                return None
        reason = _SETTLED
        for ring, patience in self._patient:
            until_ns = patience.until(ring.stamps, ring.head, frame_ns, now_ns)
            if until_ns > now_ns:
                self._wait(ring, frame_ns, until_ns)
                return None
            if until_ns:
                reason = _VALUE
        return reason

    def _wait(self, ring: Ring, frame_ns: int, until_ns: int) -> None:
        """For this ring alone: the frame can't leave before, and the others are asked again then."""
        self._blocker = ring
        ring.wake_ns = frame_ns - ring.min_gap_ns
        self.due_ns = min(until_ns, frame_ns + self.deadline_ns)

    def _rest(self, now_ns: int) -> None:
        """A FrameSet leaves: the next may be ready at once, or is not there yet."""
        self.due_ns = now_ns if self.camera.stamps else self.metronome.due_ns
        if self._blocker is not None:
            self._blocker.wake_ns = NEVER
            self._blocker = None

    def _sleep(self) -> None:
        """Nothing at all has come for long: whatever comes next wakes."""
        self._asleep = True
        self.metronome.stop()
        self.due_ns = NEVER
        for ring in self.others:
            ring.wake_ns = LONG_AGO

    def _wake(self, now_ns: int) -> None:
        self._asleep = False
        self.metronome.start(now_ns)
        for ring in self.others:
            ring.wake_ns = NEVER
            ring.since_ns = now_ns


def _own_copy(method: Any) -> Any:
    """The same method on code of its own, which the interpreter then specialises for this stream's samples alone."""
    function = method.__func__
    code = function.__code__.replace()
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return MethodType(copy, method.__self__)
