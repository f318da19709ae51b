"""The rings between the sources and a frame: one a stream, bounded, that account for every sample.

A sample that came is used (it was in at least one FrameSet), dropped for a stated reason, or still in the ring:

    superseded  newer ones were nearer to every frame
    duplicate   its sequence number had come already
    late        every frame it could have served had left
    clock       captured after it arrived: the sensor's clock is wrong
    overflow    more samples than the ring holds before a frame used them
    corrupt     its content could not be decoded

A ring never blocks and never allocates per sample beyond the sample itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import Any, Final

from edge.frameset import Pick
from edge.patience import Patience
from edge.streams import MS, SECOND, Policy, Stream

NEVER: Final = 1 << 62
UNSEEN: Final = -1
# A stamp this far after its arrival is clock jitter; beyond, the clock is wrong.
CLOCK_SLACK_NS: Final = 2 * MS
SILENT: Final = Pick((), 0, "silent")
STALE: Final = Pick((), 0, "stale")
# More sequence numbers missing than this is a restarted source, not a gap to wait for.
MAX_MISSING: Final = 1024
# How many samples may overtake the very first one.
FIRST_SEQS: Final = 64


class Ring:
    """Samples of one stream between `oldest still useful` and `newest`, sorted by stamp and sequence number.

    The subclasses say what a frame takes from it. `wake_ns` is set by the synchroniser: a push at or after it may
    complete a waiting frame.
    """

    __slots__ = (
        "capacity",
        "dropped",
        "gap_from_ns",
        "gap_until_ns",
        "last_frame_ns",
        "min_gap_ns",
        "missing",
        "newest_ns",
        "next_seq",
        "samples",
        "slack_ns",
        "stamps",
        "stream",
        "used",
        "used_seqs",
        "wake_ns",
    )

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.capacity = stream.ring
        # Nothing lies between a sample and the next one that the rate allows.
        self.min_gap_ns = int(SECOND / stream.rate_hz)
        # A sample of this long before the frame, or younger, settles it.
        self.slack_ns = self.min_gap_ns - 1 if stream.policy in (Policy.HOLD, Policy.WINDOW) else 0
        self.stamps: list[int] = []
        self.samples: list[Any] = []
        self.next_seq = UNSEEN
        self.newest_ns = 0
        self.wake_ns = NEVER
        self.last_frame_ns = 0  # instant of the last frame served
        self.missing: set[int] = set()  # sequence numbers that were skipped and may still come
        self.gap_from_ns = 0  # last stamp before the oldest of them
        self.gap_until_ns = 0  # when they are lost for good
        self.used = 0
        self.used_seqs: set[int] = set()  # of samples still in the ring
        self.dropped: Counter[str] = Counter()

    def push(self, sample: Any, now_ns: int) -> bool:
        """Take a sample that arrived now; True if a waiting frame may be complete."""
        stamp_ns: int = sample.stamp_ns
        stamps = self.stamps
        if (
            sample.seq != self.next_seq
            or stamp_ns < self.newest_ns
            or stamp_ns > now_ns
            or len(stamps) >= self.capacity
        ):
            return self._push_irregular(sample, now_ns)
        self.next_seq += 1
        self.newest_ns = stamp_ns
        stamps.append(stamp_ns)
        self.samples.append(sample)
        return stamp_ns >= self.wake_ns

    def bound_ns(self, now_ns: int) -> int:
        """Every sample captured up to this instant has arrived, if the stream keeps its lateness promise."""
        by_time = now_ns - self.stream.lateness_ns
        if self.missing:
            if now_ns >= self.gap_until_ns:
                self.missing.clear()
            else:
                return max(by_time, self.gap_from_ns)
        if self.next_seq == UNSEEN:
            return by_time
        return max(by_time, self.newest_ns + self.min_gap_ns - 1)

    def needs_ns(self, frame_ns: int) -> int:
        """The bound from which on nothing that arrives can change what the frame takes."""
        return frame_ns

    def is_silent(self, now_ns: int, since_ns: int) -> bool:
        """Whether nothing has come for so long (from `since_ns` on) that waiting is pointless."""
        last_ns = since_ns if self.next_seq == UNSEEN else self.newest_ns
        return now_ns - last_ns > self.stream.silence_ns + self.stream.lateness_ns

    def waits_until(self, frame_ns: int, now_ns: int) -> int:
        """Beyond its promise: see `Patience.until`."""
        return 0

    def take(self, frame_ns: int) -> Pick:
        """What the frame at this instant takes; what no later frame can take leaves the ring."""
        raise NotImplementedError(type(self).__name__)

    def accounts(self) -> dict[str, int]:
        """used, buffered, and dropped by reason; their sum is what came."""
        buffered_used = len(self.used_seqs)
        return {"used": self.used, "buffered": len(self.stamps) - buffered_used, **self.dropped}

    def _push_irregular(self, sample: Any, now_ns: int) -> bool:
        stamp_ns, seq = sample.stamp_ns, sample.seq
        if stamp_ns > now_ns + CLOCK_SLACK_NS:
            self.dropped["clock"] += 1
            self.next_seq = max(self.next_seq, seq + 1)
            return False
        if self.next_seq == UNSEEN:  # the first to arrive need not be the first that was captured
            self.next_seq = max(seq - FIRST_SEQS, 0)
            if seq > self.next_seq:
                self._open_gap(seq, stamp_ns)
        elif seq < self.next_seq:
            if seq in self.missing:
                self.missing.discard(seq)
            elif stamp_ns > self.newest_ns:  # the source restarted its count
                self.next_seq = seq
                self.missing.clear()
            else:
                self.dropped["duplicate"] += 1
                return False
        elif seq > self.next_seq:
            self._open_gap(seq, stamp_ns)
        self.next_seq = max(self.next_seq, seq + 1)
        return self._insert(sample, stamp_ns, seq)

    def _open_gap(self, seq: int, stamp_ns: int) -> None:
        if seq - self.next_seq > MAX_MISSING:
            self.missing.clear()
            return
        if not self.missing:
            self.gap_from_ns = self.newest_ns
            self.gap_until_ns = 0
        self.missing.update(range(self.next_seq, seq))
        self.gap_until_ns = max(self.gap_until_ns, stamp_ns + self.stream.lateness_ns)

    def _insert(self, sample: Any, stamp_ns: int, seq: int) -> bool:
        if self._is_late(stamp_ns):
            self.dropped["late"] += 1
            return False
        stamps, samples = self.stamps, self.samples
        at = bisect_right(stamps, stamp_ns)
        while at and stamps[at - 1] == stamp_ns and samples[at - 1].seq > seq:
            at -= 1
        stamps.insert(at, stamp_ns)
        samples.insert(at, sample)
        self.newest_ns = max(self.newest_ns, stamp_ns)
        if len(stamps) > self.capacity:
            self._retire(1, "overflow")
        return self.wake_ns != NEVER

    def _is_late(self, stamp_ns: int) -> bool:
        """Whether no frame to come can take a sample of this stamp."""
        return bool(self.stamps) and stamp_ns < self.stamps[0] and stamp_ns <= self.last_frame_ns

    def _mark_used(self, seq: int) -> None:
        self.used_seqs.add(seq)
        self.used += 1

    def _retire(self, count: int, reason: str) -> None:
        """The oldest `count` samples leave; those never used are dropped for this reason."""
        used_seqs = self.used_seqs
        unused = count
        if used_seqs:
            for sample in self.samples[:count]:
                if sample.seq in used_seqs:
                    used_seqs.discard(sample.seq)
                    unused -= 1
        if unused:
            self.dropped[reason] += unused
        del self.stamps[:count]
        del self.samples[:count]


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
        if age_ns > self.stream.tolerance_ns:
            return STALE
        sample = self.samples[0]
        if sample.seq not in self.used_seqs:
            self._mark_used(sample.seq)
        return Pick((sample,), age_ns, "")


class NearestRing(Ring):
    """The sample nearest to the frame, the older one of two equally near."""

    __slots__ = ()

    def needs_ns(self, frame_ns: int) -> int:
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        reach_ns = self.stream.ahead_ns
        if at:
            reach_ns = min(reach_ns, frame_ns - stamps[at - 1] - 1)
        if at < len(stamps):
            reach_ns = min(reach_ns, stamps[at] - frame_ns)
        return frame_ns + max(reach_ns, 0)

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps, stream = self.stamps, self.stream
        at = bisect_right(stamps, frame_ns)
        ahead_ns = stamps[at] - frame_ns if at < len(stamps) else NEVER
        if ahead_ns <= stream.ahead_ns and (not at or ahead_ns < frame_ns - stamps[at - 1]):
            at += 1
        if not at:
            return SILENT
        if at > 1:
            self._retire(at - 1, "superseded")
        age_ns = frame_ns - stamps[0]
        if age_ns > stream.tolerance_ns:
            return STALE
        sample = self.samples[0]
        if sample.seq not in self.used_seqs:
            self._mark_used(sample.seq)
        return Pick((sample,), age_ns, "")


class InterpolateRing(Ring):
    """The samples on both sides of the frame; one of them where the other is missing."""

    __slots__ = ()

    def needs_ns(self, frame_ns: int) -> int:
        stamps = self.stamps
        at = bisect_right(stamps, frame_ns)
        if at and stamps[at - 1] == frame_ns:
            return frame_ns
        reach_ns = self.stream.ahead_ns
        if at < len(stamps):
            reach_ns = min(reach_ns, stamps[at] - frame_ns)
        return frame_ns + reach_ns

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps, samples, stream = self.stamps, self.samples, self.stream
        at = bisect_right(stamps, frame_ns)
        if at > 1:
            self._retire(at - 1, "superseded")
            at = 1
        before = at and frame_ns - stamps[0] <= stream.tolerance_ns
        age_ns = frame_ns - stamps[0] if before else NEVER
        ahead_ns = stamps[at] - frame_ns if age_ns and at < len(stamps) else NEVER  # at the very instant: no other
        if ahead_ns <= stream.ahead_ns:
            picked = (samples[0], samples[at]) if before else (samples[at],)
            if ahead_ns < age_ns:
                age_ns = -ahead_ns
        elif before:
            picked = (samples[0],)
        else:
            return STALE if at else SILENT
        for sample in picked:
            if sample.seq not in self.used_seqs:
                self._mark_used(sample.seq)
        return Pick(picked, age_ns, "")


class WindowRing(Ring):
    """All samples of (frame - window, frame].

    Nearly every sample is in a window, so they are counted in bulk: the first `fresh` of the ring have been in one,
    but for those whose stamps are in `behind`, which came late between them.
    """

    __slots__ = ("behind", "fresh")

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.fresh = 0
        self.behind: list[int] = []

    def take(self, frame_ns: int) -> Pick:
        self.last_frame_ns = frame_ns
        stamps = self.stamps
        end = bisect_right(stamps, frame_ns)
        start = bisect_right(stamps, frame_ns - self.stream.window_ns, 0, end)
        if start:
            self._retire(start, "superseded")
            end -= start
        if self.behind:
            self.used += len(self.behind)
            self.behind.clear()
        if end > self.fresh:
            self.used += end - self.fresh
            self.fresh = end
        if not end:
            return SILENT
        age_ns = frame_ns - stamps[end - 1]
        if age_ns > self.stream.tolerance_ns:
            return STALE
        return Pick(self.samples[:end], age_ns, "")

    def accounts(self) -> dict[str, int]:
        return {"used": self.used, "buffered": len(self.stamps) - self.fresh + len(self.behind), **self.dropped}

    def _insert(self, sample: Any, stamp_ns: int, seq: int) -> bool:
        if not self._is_late(stamp_ns) and bisect_right(self.stamps, stamp_ns) < self.fresh:
            self.fresh += 1
            self.behind.append(stamp_ns)
        return super()._insert(sample, stamp_ns, seq)

    def _is_late(self, stamp_ns: int) -> bool:
        return stamp_ns <= self.last_frame_ns - self.stream.window_ns

    def _retire(self, count: int, reason: str) -> None:
        if self.behind:
            last_ns = self.stamps[count - 1]
            lost = sum(stamp_ns <= last_ns for stamp_ns in self.behind)
            self.dropped["late"] += lost
            self.behind = [stamp_ns for stamp_ns in self.behind if stamp_ns > last_ns]
        unused = max(count - self.fresh, 0)
        if unused:
            self.dropped[reason] += unused
        self.fresh -= count - unused
        del self.stamps[:count]
        del self.samples[:count]


class PatientRing(NearestRing):
    """A NearestRing that learns from its deliveries how long it pays to wait for it."""

    __slots__ = ("patience",)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.patience = Patience(stream)

    def push(self, sample: Any, now_ns: int) -> bool:
        self.patience.learn(sample.stamp_ns, sample.seq, now_ns)
        return super().push(sample, now_ns)

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
    if stream.worth and stream.policy is Policy.NEAREST:
        return PatientRing(stream)
    return RINGS[stream.policy](stream)
