"""The ring between a source and the frames: bounded, sorted, and it accounts for every sample.

A sample that came is used (it was in at least one FrameSet), dropped for a stated reason, or still in the ring:

    superseded  newer ones were nearer to every frame
    duplicate   its sequence number had come already, or is too old to tell
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
from edge.gap import FIRST_SEQS, UNSEEN, Gap
from edge.streams import MS, SECOND, Policy, Stream

NEVER: Final = 1 << 62
LONG_AGO: Final = -NEVER
# A stamp this far after its arrival is clock jitter; beyond, the clock is wrong.
CLOCK_SLACK_NS: Final = 2 * MS
# More sequence numbers skipped than this is a source that counts anew, not a gap to wait for.
MAX_SKIPPED: Final = 1024


class Ring:
    """Samples of one stream between `oldest still useful` and `newest`, sorted by stamp and sequence number.

    The subclasses say what a frame takes from it. The first `fresh` samples have been in a FrameSet, but for those
    whose stamps are in `behind`, which came late between them.

    Attributes:
        wake_ns: a push of this stamp or a later one may complete a waiting frame; NEVER while none waits for it.
        since_ns: when somebody began to listen to the stream.
    """

    __slots__ = (
        "behind",
        "capacity",
        "dropped",
        "fresh",
        "gap",
        "last_frame_ns",
        "lateness_ns",
        "min_gap_ns",
        "newest_ns",
        "next_seq",
        "samples",
        "since_ns",
        "slack_ns",
        "stamps",
        "stream",
        "tolerance_ns",
        "used",
        "wake_ns",
    )

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.capacity = stream.ring
        self.lateness_ns = stream.lateness_ns
        self.tolerance_ns = stream.tolerance_ns
        # Nothing lies between a sample and the next one that the rate allows.
        self.min_gap_ns = int(SECOND / stream.rate_hz)
        # A sample of this long before the frame, or younger, settles it.
        self.slack_ns = self.min_gap_ns - 1 if stream.policy in (Policy.HOLD, Policy.WINDOW) else 0
        self.stamps: list[int] = []
        self.samples: list[Any] = []
        self.next_seq = UNSEEN
        self.newest_ns = LONG_AGO
        self.gap = Gap(stream.ring)
        self.wake_ns = LONG_AGO
        self.since_ns = 0
        self.last_frame_ns = LONG_AGO  # instant of the last frame served
        self.fresh = 0
        self.behind: list[int] = []
        self.used = 0
        self.dropped: Counter[str] = Counter()

    def push(self, sample: Any, now_ns: int) -> bool:
        """Take a sample that arrived now; True if a waiting frame may be complete."""
        stamp_ns: int = sample.stamp_ns
        stamps = self.stamps
        if sample.seq != self.next_seq or not self.newest_ns <= stamp_ns <= now_ns or len(stamps) >= self.capacity:
            return self._push_irregular(sample, stamp_ns, now_ns)
        self.next_seq += 1
        self.newest_ns = stamp_ns
        stamps.append(stamp_ns)
        self.samples.append(sample)
        return stamp_ns >= self.wake_ns

    def bound_ns(self, now_ns: int) -> int:
        """Every sample captured up to this instant has arrived, if the stream keeps its lateness promise."""
        by_time_ns = now_ns - self.lateness_ns
        if self.gap.missing:
            if now_ns < self.gap.until_ns:
                return max(by_time_ns, self.gap.from_ns)
            self.gap.close(self.next_seq)
        return max(by_time_ns, self.newest_ns + self.min_gap_ns - 1)

    def needs_ns(self, frame_ns: int) -> int:
        """The bound from which on nothing that arrives can change what the frame takes."""
        return frame_ns

    def holds_until(self, frame_ns: int, now_ns: int) -> int:
        """Until when the stream's promise holds the frame back, later than now; 0 if it does not."""
        needs_ns = self.needs_ns(frame_ns)
        if self.bound_ns(now_ns) >= needs_ns:
            return 0
        stream = self.stream
        silent_ns = max(self.newest_ns, self.since_ns) + stream.silence_ns + stream.lateness_ns
        return min(needs_ns + stream.lateness_ns, silent_ns) if silent_ns > now_ns else 0

    def waits_until(self, frame_ns: int, now_ns: int) -> int:
        """Beyond its promise: see `Patience.until`."""
        return 0

    def take(self, frame_ns: int) -> Pick:
        """What the frame at this instant takes; what no later frame can take leaves the ring."""
        raise NotImplementedError(type(self).__name__)

    def accounts(self) -> dict[str, int]:
        """used, buffered, and dropped by reason; their sum is what came."""
        return {"used": self.used, "buffered": len(self.stamps) - self.fresh + len(self.behind), **self.dropped}

    def _push_irregular(self, sample: Any, stamp_ns: int, now_ns: int) -> bool:
        refusal = self._refusal(stamp_ns, sample.seq, now_ns)
        if refusal:
            self.dropped[refusal] += 1
        else:
            self._insert(sample, stamp_ns)
        return self.wake_ns != NEVER

    def _refusal(self, stamp_ns: int, seq: int, now_ns: int) -> str:
        """Why the sample is of no use; "" if it is. Keeps the count of numbers."""
        if stamp_ns > now_ns + CLOCK_SLACK_NS:
            return "clock"
        if seq >= self.next_seq:
            self._count_on(seq, stamp_ns)
        elif not self.gap.fill(seq):
            if stamp_ns <= self.newest_ns:
                return "duplicate"
            self._count_anew(seq, stamp_ns)
        return "late" if self._is_late(stamp_ns) else ""

    def _count_on(self, seq: int, stamp_ns: int) -> None:
        if self.next_seq == UNSEEN or seq - self.next_seq > MAX_SKIPPED:
            self._count_anew(seq, stamp_ns)
            return
        if seq > self.next_seq:
            self.gap.open(self.next_seq, seq, self.newest_ns, stamp_ns + self.lateness_ns)
        self.next_seq = seq + 1

    def _count_anew(self, seq: int, stamp_ns: int) -> None:
        """The first number to arrive need not be the first that was captured."""
        self.gap.forget()
        if seq > 0:
            self.gap.open(max(seq - FIRST_SEQS, 0), seq, self.newest_ns, stamp_ns + self.lateness_ns)
        self.next_seq = seq + 1

    def _is_late(self, stamp_ns: int) -> bool:
        """Whether no frame to come can take a sample of this stamp."""
        return bool(self.stamps) and stamp_ns < self.stamps[0] <= self.last_frame_ns

    def _insert(self, sample: Any, stamp_ns: int) -> None:
        stamps, samples, seq = self.stamps, self.samples, sample.seq
        at = bisect_right(stamps, stamp_ns)
        while at and stamps[at - 1] == stamp_ns and samples[at - 1].seq > seq:
            at -= 1
        if at < self.fresh:
            self.fresh += 1
            self.behind.append(stamp_ns)
        stamps.insert(at, stamp_ns)
        samples.insert(at, sample)
        self.newest_ns = max(self.newest_ns, stamp_ns)
        if len(stamps) > self.capacity:
            self._retire(1, "overflow")

    def _use(self, end: int) -> None:
        """The first `end` samples are in a FrameSet."""
        if self.behind:
            last_ns = self.stamps[end - 1]
            waiting = [stamp_ns for stamp_ns in self.behind if stamp_ns > last_ns]
            self.used += len(self.behind) - len(waiting)
            self.behind = waiting
        if end > self.fresh:
            self.used += end - self.fresh
            self.fresh = end

    def _retire(self, count: int, reason: str) -> None:
        """The oldest `count` samples leave; those never used are dropped for this reason."""
        if self.behind:
            last_ns = self.stamps[count - 1]
            staying = [stamp_ns for stamp_ns in self.behind if stamp_ns > last_ns]
            self.dropped[reason] += len(self.behind) - len(staying)
            self.behind = staying
        fresh = self.fresh - count
        if fresh < 0:
            self.dropped[reason] -= fresh
            fresh = 0
        self.fresh = fresh
        del self.stamps[:count]
        del self.samples[:count]
