"""The ring between a source and the frames: bounded, sorted, and it accounts for every sample.

A sample that came is used (it was in at least one FrameSet), dropped for a stated reason, or still in the ring:

    superseded  newer ones were nearer to every frame
    duplicate   its sequence number had come already, or is too old to tell
    late        every frame it could have served had left
    clock       captured after it arrived: the sensor's clock is wrong
    overflow    more samples than the ring holds before a frame used them
    corrupt     its content could not be decoded

A ring never blocks, and takes no memory of its own for a sample.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from edge.frameset import Pick
from edge.gap import FIRST_SEQS, UNSEEN, Gap
from edge.patience import Patience
from edge.streams import MS, SECOND, Stream

NEVER: Final = 1 << 64  # behind every instant that a drive can have
LONG_AGO: Final = -NEVER
# A stamp this far after its arrival is clock jitter; beyond, the clock is wrong.
CLOCK_SLACK_NS: Final = 2 * MS
# What no frame can take any more is forgotten this many samples at a time: seldom enough to cost nothing, often enough
# that the garbage collector, which counts what is alive, sees nothing grow.
TRIM_SAMPLES: Final = 32
# More sequence numbers skipped than this is a source that counts anew, not a gap to wait for.
MAX_SKIPPED: Final = 1024


class Choice(NamedTuple):
    """What a policy means.

    Attributes:
        needs_ns: (ring, frame_ns) -> the bound from which on nothing that arrives can change what the frame takes.
        take: (ring, frame_ns) -> what the frame takes; what no later frame can take is left behind.
    """

    needs_ns: Callable[[Ring, int], int]
    take: Callable[[Ring, int], Pick]


class Ring:
    """Samples of one stream between `oldest still useful` and `newest`, sorted by stamp and sequence number.

    Its policy's `Choice` says what a frame takes from it: there is one class for all streams, so that the interpreter
    can specialise the code that every message runs through. What no frame can take any more lies before `head`, until
    its room is needed. From there to `fresh` all have been in a FrameSet, but for those whose stamps are in `behind`,
    which came late between them.

    Attributes:
        full_seq: the number at which room must be made; nothing but a regular push changes how far away it is.
        wake_ns: a push of this stamp or a later one may complete a waiting frame; NEVER while none waits for it.
        since_ns: when somebody began to listen to the stream.
    """

    __slots__ = (
        "ahead_ns",
        "behind",
        "capacity",
        "choice",
        "dropped",
        "fresh",
        "full_seq",
        "gap",
        "head",
        "last_frame_ns",
        "lateness_ns",
        "left",
        "min_gap_ns",
        "missing",
        "newest_ns",
        "next_seq",
        "patience",
        "promise_ns",
        "samples",
        "since_ns",
        "slack_ns",
        "stamps",
        "stream",
        "tolerance_ns",
        "used",
        "wake_ns",
        "window_ns",
    )

    def __init__(self, stream: Stream, choice: Choice) -> None:
        self.stream = stream
        self.choice = choice
        self.patience = Patience(stream) if stream.worth else None
        self.capacity = stream.ring
        self.lateness_ns = stream.lateness_ns
        self.tolerance_ns = stream.tolerance_ns
        self.ahead_ns = stream.ahead_ns
        self.window_ns = stream.window_ns
        # Nothing lies between a sample and the next one that the rate allows.
        self.min_gap_ns = int(SECOND / stream.rate_hz)
        # A sample this long before the frame, or younger, settles it, if none before it is missing ...
        self.slack_ns = max(self.min_gap_ns - 1 - stream.ahead_ns, 0)
        # ... and so does, after this long, the stream's promise.
        self.promise_ns = stream.ahead_ns + stream.lateness_ns
        self.stamps: list[int] = []
        self.samples: list[Any] = []
        self.next_seq = UNSEEN
        self.full_seq = UNSEEN
        self.newest_ns = LONG_AGO
        self.gap = Gap(stream.ring)
        self.missing = self.gap.missing
        self.wake_ns = LONG_AGO
        self.since_ns = 0
        self.last_frame_ns = LONG_AGO  # instant of the last frame served
        self.head = 0
        self.fresh = 0
        self.behind: list[int] = []
        self.left = 0  # samples that are not held any more
        self.used = 0
        self.dropped: Counter[str] = Counter()

    def push(self, sample: Any, now_ns: int) -> bool:
        """Take a sample that arrived now; True if a waiting frame may be complete."""
        seq: int = sample.seq
        stamp_ns: int = sample.stamp_ns
        if seq == self.next_seq and self.newest_ns <= stamp_ns <= now_ns and seq != self.full_seq:
            self.next_seq = seq + 1
            self.newest_ns = stamp_ns
            self.stamps.append(stamp_ns)
            self.samples.append(sample)
            return stamp_ns >= self.wake_ns
        return self._push_irregular(sample, stamp_ns, now_ns)

    def push_and_learn(self, sample: Any, now_ns: int) -> bool:
        """`push` for a stream that is worth waiting for: its patience learns from what is new."""
        before_ns = self.newest_ns
        ready = self.push(sample, now_ns)
        if self.newest_ns > before_ns and self.patience is not None:
            self.patience.learn(sample.stamp_ns, sample.seq, now_ns)
        return ready

    def bound_ns(self, now_ns: int) -> int:
        """Every sample captured up to this instant has arrived, if the stream keeps its lateness promise."""
        by_time_ns = now_ns - self.lateness_ns
        if self.missing:
            if now_ns < self.gap.until_ns:
                return max(by_time_ns, self.gap.from_ns)
            self.gap.close(self.next_seq)
        return max(by_time_ns, self.newest_ns + self.min_gap_ns - 1)

    def holds_until(self, frame_ns: int, now_ns: int) -> int:
        """Until when the stream's promise holds the frame back, later than now; 0 if it does not."""
        needs_ns = self.choice.needs_ns(self, frame_ns)
        if self.bound_ns(now_ns) >= needs_ns:
            return 0
        stream = self.stream
        silent_ns = max(self.newest_ns, self.since_ns) + stream.silence_ns + stream.lateness_ns
        return min(needs_ns + stream.lateness_ns, silent_ns) if silent_ns > now_ns else 0

    def accounts(self) -> dict[str, int]:
        """used, buffered, and dropped by reason; their sum is what came."""
        used_here = self.fresh - self.head - len(self.behind)
        superseded = self.left + self.head - (self.used - used_here) - self.dropped["overflow"]
        dropped = self.dropped + Counter(superseded=superseded)
        return {"used": self.used, "buffered": len(self.stamps) - self.head - used_here, **dropped}

    def trim(self) -> None:
        """Forget what lies before the head."""
        head = self.head
        del self.stamps[:head]
        del self.samples[:head]
        self.left += head
        self.fresh -= head
        self.head = 0
        self._look_for_room()

    def use(self, end: int) -> None:
        """All from the head to `end` are in a FrameSet."""
        if self.behind:
            last_ns = self.stamps[end - 1]
            waiting = [stamp_ns for stamp_ns in self.behind if stamp_ns > last_ns]
            self.used += len(self.behind) - len(waiting)
            self.behind = waiting
        if end > self.fresh:
            self.used += end - self.fresh
            self.fresh = end

    def advance(self, head: int) -> None:
        """What lies before this new head is of no use any more."""
        if self.behind:
            last_ns = self.stamps[head - 1]
            self.behind = [stamp_ns for stamp_ns in self.behind if stamp_ns > last_ns]
        self.head = head
        if head > self.fresh:
            self.fresh = head

    def _push_irregular(self, sample: Any, stamp_ns: int, now_ns: int) -> bool:
        if sample.seq == self.next_seq == self.full_seq and len(self.stamps) - self.head < self.capacity:
            self.trim()
            return self.push(sample, now_ns)
        refusal = self._refusal(stamp_ns, sample.seq, now_ns)
        if refusal:
            self.dropped[refusal] += 1
        else:
            self._insert(sample, stamp_ns)
        self._look_for_room()
        return self.wake_ns != NEVER

    def _look_for_room(self) -> None:
        self.full_seq = self.next_seq + min(self.capacity - len(self.stamps), TRIM_SAMPLES)

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
        if self.window_ns:
            return stamp_ns <= self.last_frame_ns - self.window_ns
        head = self.head
        return head < len(self.stamps) and stamp_ns < self.stamps[head] <= self.last_frame_ns

    def _insert(self, sample: Any, stamp_ns: int) -> None:
        if len(self.stamps) >= self.capacity:
            self.trim()
        stamps, samples, seq = self.stamps, self.samples, sample.seq
        at = bisect_right(stamps, stamp_ns, self.head)
        while at > self.head and stamps[at - 1] == stamp_ns and samples[at - 1].seq > seq:
            at -= 1
        if at < self.fresh:
            self.fresh += 1
            self.behind.append(stamp_ns)
        stamps.insert(at, stamp_ns)
        samples.insert(at, sample)
        self.newest_ns = max(self.newest_ns, stamp_ns)
        if len(stamps) > self.capacity:
            was_used = self.head < self.fresh and self.stamps[self.head] not in self.behind
            self.dropped["overflow"] += not was_used
            self.advance(self.head + 1)
            self.trim()
