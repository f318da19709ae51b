"""How long a frame waits for a stream beyond its lateness promise: while the wait is expected to pay.

Learned from the stream's own deliveries, in integers, so that a replay learns the same: its period (from stamps and
sequence numbers) and its delivery delay (a running 90th percentile).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from edge.streams import MS, Stream

_STEP_NS: Final = MS // 4
# Looking a little past the expected arrival costs little and saves a sample that is a little late.
_SLACK_NS: Final = 2 * MS
_MAX_STEPS: Final = 16
_SILENT_PERIODS: Final = 4


class Patience:
    """The expectations of one stream."""

    __slots__ = ("delay_ns", "last_ns", "last_seq", "period_ns", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.delay_ns = 0  # 90th percentile of arrival - capture
        self.period_ns = 0
        self.last_ns = 0
        self.last_seq = -1

    def learn(self, stamp_ns: int, seq: int, now_ns: int) -> None:
        """See the delivery of a sample newer than all before."""
        delay_ns = now_ns - stamp_ns
        if self.last_seq < 0:
            self.delay_ns = max(delay_ns, 0)
        else:
            self.delay_ns = max(self.delay_ns + (9 * _STEP_NS if delay_ns > self.delay_ns else -_STEP_NS), 0)
            steps = seq - self.last_seq
            if 0 < steps <= _MAX_STEPS:
                period_ns = (stamp_ns - self.last_ns) // steps
                self.period_ns = (7 * self.period_ns + period_ns) // 8 if self.period_ns else period_ns
        self.last_seq, self.last_ns = seq, stamp_ns

    def until(self, stamps: list[int], head: int, frame_ns: int, now_ns: int) -> int:
        """Until when to wait for a nearer sample: later than now if it pays, now if not, 0 if none is expected.

        Args:
            stamps: of the samples at hand, sorted.
            head: where those begin.
        """
        stream, period_ns, last_ns = self.stream, self.period_ns, self.last_ns
        latest_ns = frame_ns + stream.ahead_ns
        if not period_ns or not frame_ns - _SILENT_PERIODS * period_ns <= last_ns <= latest_ns - period_ns:
            return 0
        expected_ns = latest_ns - (latest_ns - last_ns) % period_ns
        at_hand_ns = stream.tolerance_ns
        at = bisect_right(stamps, frame_ns, head)
        if at > head:
            at_hand_ns = min(at_hand_ns, frame_ns - stamps[at - 1])
        if at < len(stamps):
            at_hand_ns = min(at_hand_ns, stamps[at] - frame_ns)
        gain_ns = at_hand_ns - abs(expected_ns - frame_ns)
        if gain_ns <= 0:
            return 0
        arrival_ns = expected_ns + self.delay_ns + _SLACK_NS
        return max(arrival_ns, now_ns) if stream.worth * gain_ns >= arrival_ns - now_ns else now_ns
