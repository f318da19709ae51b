"""What a frame takes from a stream's ring, one class a policy of the stream table."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from edge.frameset import Pick
from edge.patience import Patience
from edge.ring import NEVER, Ring
from edge.streams import Policy, Stream

SILENT: Final = Pick((), 0, "silent")
STALE: Final = Pick((), 0, "stale")


class HoldRing(Ring):
    """The last sample at or before the frame, however old up to the tolerance."""

    __slots__ = ()

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        if at > 1:
            self._retire(at - 1, "superseded")
        elif not at:
            return SILENT
        age_ns = frame_ns - stamps[0]
        if age_ns > self.tolerance_ns:
            return STALE
        if not self.fresh or self.behind:
            self._use(1)
        return Pick((self.samples[0],), age_ns, "")


class NearestRing(Ring):
    """The sample nearest to the frame, the older one of two equally near."""

    __slots__ = ("ahead_ns",)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.ahead_ns = stream.ahead_ns

    def needs_ns(self, frame_ns: int) -> int:
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        reach_ns = self.ahead_ns
        if at:
            reach_ns = min(reach_ns, frame_ns - stamps[at - 1] - 1)
        if at < len(stamps):
            reach_ns = min(reach_ns, stamps[at] - frame_ns)
        return frame_ns + max(reach_ns, 0)

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        ahead_ns = stamps[at] - frame_ns if at < len(stamps) else NEVER
        if ahead_ns <= self.ahead_ns and (not at or ahead_ns < frame_ns - stamps[at - 1]):
            at += 1
        if at > 1:
            self._retire(at - 1, "superseded")
        elif not at:
            return SILENT
        age_ns = frame_ns - stamps[0]
        if age_ns > self.tolerance_ns:
            return STALE
        if not self.fresh or self.behind:
            self._use(1)
        return Pick((self.samples[0],), age_ns, "")


class InterpolateRing(Ring):
    """The samples on both sides of the frame; one of them where the other is missing."""

    __slots__ = ("ahead_ns",)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.ahead_ns = stream.ahead_ns

    def needs_ns(self, frame_ns: int) -> int:
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        if at and stamps[at - 1] == frame_ns:
            return frame_ns
        reach_ns = self.ahead_ns
        if at < len(stamps):
            reach_ns = min(reach_ns, stamps[at] - frame_ns)
        return frame_ns + reach_ns

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps, samples = self.stamps, self.samples
        at = bisect_right(stamps, frame_ns)
        if at > 1:
            self._retire(at - 1, "superseded")
            at = 1
        age_ns = frame_ns - stamps[0] if at else NEVER
        ahead_ns = stamps[at] - frame_ns if age_ns and at < len(stamps) else NEVER  # at the very instant: no other
        if ahead_ns > self.ahead_ns:
            if age_ns > self.tolerance_ns:
                return STALE if at else SILENT
            end = 1
        elif age_ns > self.tolerance_ns:
            if at:
                self._retire(1, "superseded")
            age_ns, end = -ahead_ns, 1
        else:
            age_ns, end = min(age_ns, -ahead_ns, key=abs), 2
        if self.fresh < end or self.behind:
            self._use(end)
        return Pick((samples[0], samples[1]) if end > 1 else (samples[0],), age_ns, "")


class WindowRing(Ring):
    """All samples of (frame - window, frame]."""

    __slots__ = ("window_ns",)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.window_ns = stream.window_ns

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps = self.stamps
        end = bisect_right(stamps, frame_ns)
        start = bisect_right(stamps, frame_ns - self.window_ns, 0, end)
        if start:
            self._retire(start, "superseded")
            end -= start
        if not end:
            return SILENT
        age_ns = frame_ns - stamps[end - 1]
        if age_ns > self.tolerance_ns:
            return STALE
        self._use(end)
        return Pick(self.samples[:end], age_ns, "")

    def _is_late(self, stamp_ns: int) -> bool:
        return stamp_ns <= self.last_frame_ns - self.window_ns


class PatientRing(NearestRing):
    """A NearestRing that learns from its deliveries how long it pays to wait for it."""

    __slots__ = ("patience",)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.patience = Patience(stream)

    def push(self, sample: Any, now_ns: int) -> bool:
        before_ns = self.newest_ns
        ready = super().push(sample, now_ns)
        if self.newest_ns > before_ns:
            self.patience.learn(sample.stamp_ns, sample.seq, now_ns)
        return ready

    def waits_until(self, frame_ns: int, now_ns: int) -> int:
        return self.patience.until(self.stamps, frame_ns, now_ns)


RINGS: Final[dict[Policy, type[Ring]]] = {
    Policy.NEAREST: NearestRing,
    Policy.INTERPOLATE: InterpolateRing,
    Policy.HOLD: HoldRing,
    Policy.WINDOW: WindowRing,
}


def ring_for(stream: Stream) -> Ring:
    """The ring that the stream's row asks for."""
    return PatientRing(stream) if stream.worth else RINGS[stream.policy](stream)
