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

from edge.frameset import EmitReason, FrameSet, Pick
from edge.metronome import Metronome
from edge.ring import NEVER, Ring, ring_for
from edge.samples import Frame
from edge.streams import DEADLINE_NS, STREAMS, Stream, validate


class CameraRing(Ring):
    """Frames that wait for their FrameSet, sorted by stamp; each leaves once, used or dropped."""

    __slots__ = ()

    def take(self, frame_ns: int) -> Pick:
        """The oldest frame, which is due."""
        self.last_frame_ns = frame_ns
        frame = self.samples[0]
        self.used += 1
        self.used_seqs.add(frame.seq)
        self._retire(1, "superseded")
        return Pick([frame], 0, "")

    def _push_irregular(self, sample: Any, now_ns: int) -> bool:
        super()._push_irregular(sample, now_ns)
        return True

    def _is_late(self, stamp_ns: int) -> bool:
        return stamp_ns <= self.last_frame_ns


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
        due_ns: the next instant at which `pop` may give something without a push.
    """

    def __init__(self, streams: tuple[Stream, ...] = STREAMS, deadline_ns: int = DEADLINE_NS) -> None:
        validate(streams, deadline_ns)
        self.streams = streams
        self.deadline_ns = deadline_ns
        self.camera = CameraRing(streams[0])
        self.camera.wake_ns = 0
        self.others = [ring_for(stream) for stream in streams[1:]]
        self.metronome = Metronome(self.camera.stream, deadline_ns)
        self.due_ns = 0
        self._started_ns = NEVER  # first instant that this synchroniser saw
        self._patient = [ring for ring in self.others if ring.stream.worth]
        self._armed: list[Ring] = []  # rings that the waiting frame waits for

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
        camera, metronome = self.camera, self.metronome
        if not camera.stamps:
            if now_ns < metronome.due_ns and self._started_ns != NEVER:
                self._rest(metronome.due_ns)
                return None
            return self._pop_overdue(now_ns)
        frame_ns = camera.stamps[0]
        reason = self._verdict(frame_ns, now_ns)
        if reason is None:
            return None
        if metronome.skipped(frame_ns):
            return self._emit(metronome.expected_ns, None, now_ns, reason)
        return self._emit(frame_ns, camera.take(frame_ns).samples[0], now_ns, reason)

    def _pop_overdue(self, now_ns: int) -> FrameSet | None:
        """No frame waits: the instant of one that should have come, once it is overdue."""
        if self._started_ns == NEVER:
            self._started_ns = now_ns
            self.metronome.start(now_ns)
        instant_ns = self.metronome.overdue(now_ns)
        if instant_ns is None:
            self._rest(self.metronome.due_ns)
            return None
        return self._emit(instant_ns, None, now_ns, EmitReason.DEADLINE)

    def _emit(self, stamp_ns: int, frame: Frame | None, now_ns: int, reason: EmitReason) -> FrameSet:
        self._rest(now_ns)  # another may be ready at once
        picks = [ring.take(stamp_ns) for ring in self.others]
        if frame is None:
            self.camera.last_frame_ns = stamp_ns
            self.metronome.beat(stamp_ns, None)
            return FrameSet(stamp_ns, None, self.metronome.last_seq, now_ns, reason, picks, "silent")
        self.metronome.beat(stamp_ns, frame.seq)
        return FrameSet(stamp_ns, frame, frame.seq, now_ns, reason, picks)

    def _rest(self, due_ns: int) -> None:
        """Nothing to wait for but this instant and the next frame."""
        self.due_ns = due_ns
        for ring in self._armed:
            ring.wake_ns = NEVER
        self._armed.clear()

    def _verdict(self, frame_ns: int, now_ns: int) -> EmitReason | None:
        """Why the frame leaves now; None (and `due_ns` set) if it waits."""
        deadline_ns = frame_ns + self.deadline_ns
        if now_ns >= deadline_ns:
            return EmitReason.DEADLINE
        due_ns = NEVER
        if self.camera.missing and self.camera.bound_ns(now_ns) < frame_ns - 1:  # an earlier frame may come yet
            due_ns = self.camera.gap_until_ns
        for ring in self.others:
            if ring.newest_ns >= frame_ns - ring.slack_ns and not ring.missing:
                continue  # the common case, cheaply
            due_ns = min(due_ns, self._wait_for(ring, frame_ns, now_ns))
        reason = EmitReason.SETTLED
        if due_ns == NEVER:
            for ring in self._patient:
                until_ns = ring.waits_until(frame_ns, now_ns)
                if until_ns > now_ns:
                    self._arm(ring, frame_ns)
                    due_ns = min(due_ns, until_ns)
                elif until_ns:
                    reason = EmitReason.VALUE
            if due_ns == NEVER:
                return reason
        self.due_ns = min(due_ns, deadline_ns)
        return None

    def _wait_for(self, ring: Ring, frame_ns: int, now_ns: int) -> int:
        """Until when the stream's promise holds the frame back; NEVER if it does not."""
        needs_ns = ring.needs_ns(frame_ns)
        if ring.bound_ns(now_ns) >= needs_ns or ring.is_silent(now_ns, self._started_ns):
            return NEVER
        self._arm(ring, frame_ns)
        return needs_ns + ring.stream.lateness_ns

    def _arm(self, ring: Ring, frame_ns: int) -> None:
        ring.wake_ns = frame_ns - ring.min_gap_ns
        self._armed.append(ring)
