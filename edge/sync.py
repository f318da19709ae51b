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
from typing import Any

from edge.camera_ring import CameraRing
from edge.frameset import EmitReason, FrameSet
from edge.metronome import PAUSE_NS, Metronome
from edge.ring import LONG_AGO, NEVER, Ring
from edge.rings import ring_for
from edge.streams import DEADLINE_NS, STREAMS, Stream, validate


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
        self.metronome = Metronome(streams[0], deadline_ns)
        self.due_ns = NEVER
        self._asleep = True  # until something arrives: at the start, and while the whole recording pauses
        # Whoever may hold a frame back longest is asked first, so that the frame is looked at seldom.
        self._slowest_first = sorted(self.others, key=lambda ring: -ring.stream.lateness_ns - ring.stream.ahead_ns)
        self._patient = [ring for ring in self.others if ring.stream.worth]
        self._blocker: Ring | None = None  # the ring that the waiting frame waits for

    @property
    def pushes(self) -> list[Callable[[Any, int], bool]]:
        """`push(sample, now_ns)` of each row of the table."""
        return [ring.push for ring in (self.camera, *self.others)]

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
        if metronome.skipped(frame_ns, camera.samples[0].seq):
            return self._pop_skipped(now_ns)
        reason = self._verdict(frame_ns, frame_ns - 1, now_ns)
        if reason is None:
            return None
        frame = camera.leave()
        metronome.beat(frame_ns, frame.seq, now_ns)
        self._rest(now_ns)  # another may be ready at once
        return FrameSet(frame_ns, frame, frame.seq, now_ns, reason, [ring.take(frame_ns) for ring in self.others])

    def _pop_overdue(self, now_ns: int) -> FrameSet | None:
        """No frame waits: the instant of one that should have come, once it is overdue."""
        metronome = self.metronome
        if now_ns < metronome.due_ns:
            self._rest(metronome.due_ns)
            return None
        if max(ring.newest_ns for ring in (self.camera, *self.others)) + PAUSE_NS <= now_ns:
            self._sleep()
            return None
        return self._miss(metronome.expected_ns, EmitReason.DEADLINE, now_ns)

    def _pop_skipped(self, now_ns: int) -> FrameSet | None:
        """A frame waits before which one is missing: the instant of that one, once it is sure not to come."""
        instant_ns, due_ns = self.metronome.expected_ns, self.metronome.due_ns
        reason = self._verdict(instant_ns, due_ns - self.camera.lateness_ns, now_ns)
        return self._miss(instant_ns, reason, now_ns) if reason else None

    def _miss(self, instant_ns: int, reason: EmitReason, now_ns: int) -> FrameSet:
        self.camera.miss(instant_ns)
        self.metronome.miss(instant_ns, now_ns)
        self._rest(now_ns)
        picks = [ring.take(instant_ns) for ring in self.others]
        return FrameSet(instant_ns, None, self.metronome.last_seq, now_ns, reason, picks, "silent")

    def _verdict(self, frame_ns: int, camera_needs_ns: int, now_ns: int) -> EmitReason | None:
        """Why the frame leaves now; None (and `due_ns` set) if it waits.

        Args:
            camera_needs_ns: no frame captured up to this instant may be on its way.
        """
        deadline_ns = frame_ns + self.deadline_ns
        if now_ns >= deadline_ns:
            return EmitReason.DEADLINE
        camera, blocker = self.camera, self._blocker
        if blocker is not None:
            blocker.wake_ns = NEVER
            self._blocker = None
        if camera.gap.missing:
            until_ns = camera.holds_until(camera_needs_ns, now_ns)
            if until_ns:
                self.due_ns = min(until_ns, deadline_ns)
                return None
        for ring in self._slowest_first:
            if ring.newest_ns >= frame_ns - ring.slack_ns and not ring.gap.missing:
                continue  # the common case, cheaply
            until_ns = ring.holds_until(frame_ns, now_ns)
            if until_ns:
                self._wait(ring, frame_ns, until_ns)
                return None
        reason = EmitReason.SETTLED
        for ring in self._patient:
            until_ns = ring.waits_until(frame_ns, now_ns)
            if until_ns > now_ns:
                self._wait(ring, frame_ns, until_ns)
                return None
            if until_ns:
                reason = EmitReason.VALUE
        return reason

    def _wait(self, ring: Ring, frame_ns: int, until_ns: int) -> None:
        """For this ring alone: the frame can't leave before, and the others are asked again then."""
        self._blocker = ring
        ring.wake_ns = frame_ns - ring.min_gap_ns
        self.due_ns = min(until_ns, frame_ns + self.deadline_ns)

    def _rest(self, due_ns: int) -> None:
        """Nothing to wait for but this instant and the next frame."""
        self.due_ns = due_ns
        if self._blocker is not None:
            self._blocker.wake_ns = NEVER
            self._blocker = None

    def _sleep(self) -> None:
        """Nothing at all has come for long: whatever comes next wakes."""
        self._asleep = True
        self.metronome.stop()
        self._rest(NEVER)
        for ring in self.others:
            ring.wake_ns = LONG_AGO

    def _wake(self, now_ns: int) -> None:
        self._asleep = False
        self.metronome.start(now_ns)
        for ring in self.others:
            ring.wake_ns = NEVER
            ring.since_ns = now_ns
