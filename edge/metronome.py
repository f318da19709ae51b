"""Keeps the camera's pace where the camera does not: a dropped frame, a dead camera, a drive without one.

The period is learned from the frames (stamps and sequence numbers), so that dropped ones do not bend it.
"""

from __future__ import annotations

from typing import Final

from edge.ring import NEVER
from edge.streams import SECOND, Stream

# A camera that has not shown up by then is taken for absent, and this rate is kept in its stead.
STARTUP_NS: Final = SECOND
ABSENT_PERIOD_NS: Final = SECOND // 20
# A gap of this length in which nothing at all arrived is a pause of the recording, not a camera that is silent.
PAUSE_NS: Final = 2 * SECOND
_MAX_PERIOD_NS: Final = SECOND
_MAX_STEPS: Final = 64
_UNKNOWN_SEQ: Final = -1


class Metronome:
    """Says which frame instants were missed.

    Args:
        camera: the pacing row of the stream table.
        deadline_ns: a missed instant is known for missed this long after it.

    Attributes:
        period_ns: of the camera; 0 while unknown.
        expected_ns: the next frame instant.
        due_ns: when it is missed for good.
        skip_ns: a frame later than this may have been preceded by a missed one.
        last_seq: of the last real frame.
    """

    __slots__ = (
        "_certain_ns",
        "_deadline_ns",
        "_last_stamp_ns",
        "_min_period_ns",
        "_next_seq",
        "due_ns",
        "expected_ns",
        "last_seq",
        "period_ns",
        "skip_ns",
    )

    def __init__(self, camera: Stream, deadline_ns: int) -> None:
        self._deadline_ns = deadline_ns
        # A frame this long after an instant tells that it was missed, for even the latest frame would find it overdue.
        self._certain_ns = deadline_ns - camera.lateness_ns
        self._min_period_ns = int(SECOND / camera.rate_hz)
        self._last_stamp_ns = 0  # of the last real frame
        self._next_seq = _UNKNOWN_SEQ  # that of a frame before which none was dropped
        self.period_ns = 0
        self.expected_ns = NEVER
        self.due_ns = NEVER
        self.skip_ns = NEVER
        self.last_seq = _UNKNOWN_SEQ

    def start(self, now_ns: int) -> None:
        """The run begins, or goes on after a pause: without a frame for STARTUP_NS the metronome paces alone."""
        self._expect(now_ns + STARTUP_NS, now_ns)

    def stop(self) -> None:
        """Nothing is expected until the next start or beat."""
        self.expected_ns = self.due_ns = self.skip_ns = NEVER

    def beat(self, stamp_ns: int, seq: int, now_ns: int) -> None:
        """A frame left."""
        steps = seq - self.last_seq
        if self.last_seq >= 0 and 0 < steps <= _MAX_STEPS:
            period_ns = (stamp_ns - self._last_stamp_ns) // steps
            if period_ns != self.period_ns:
                self._learn(period_ns)
        self._last_stamp_ns, self.last_seq, self._next_seq = stamp_ns, seq, seq + 1
        self._expect(stamp_ns + (self.period_ns or STARTUP_NS), now_ns)

    def miss(self, instant_ns: int, now_ns: int) -> None:
        """A FrameSet left for an instant without a frame."""
        self.period_ns = self.period_ns or ABSENT_PERIOD_NS
        self._next_seq = _UNKNOWN_SEQ
        self._expect(instant_ns + self.period_ns, now_ns)

    def skipped(self, frame_ns: int, seq: int) -> bool:
        """Whether the frame before this one is missing (a pause of the recording aside)."""
        if frame_ns <= self.skip_ns or frame_ns >= self.expected_ns + PAUSE_NS:
            return False
        return seq != self._next_seq or frame_ns >= self.expected_ns + self._certain_ns

    def _learn(self, period_ns: int) -> None:
        if self.period_ns:
            period_ns = (7 * self.period_ns + period_ns) // 8
        self.period_ns = min(max(period_ns, self._min_period_ns), _MAX_PERIOD_NS)

    def _expect(self, instant_ns: int, now_ns: int) -> None:
        if instant_ns + PAUSE_NS < now_ns:  # nobody paces a past that is long over
            instant_ns = now_ns
        slack_ns = self.period_ns // 2
        self.expected_ns = instant_ns
        self.due_ns = instant_ns + self._deadline_ns
        self.skip_ns = instant_ns + (slack_ns if slack_ns < self._certain_ns else self._certain_ns)
