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


class Metronome:
    """Says which frame instants were missed.

    Args:
        camera: the pacing row of the stream table.
        deadline_ns: a missed instant is known for missed this long after it.
    """

    __slots__ = (
        "_deadline_ns",
        "_min_period_ns",
        "due_ns",
        "expected_ns",
        "last_seq",
        "last_stamp_ns",
        "period_ns",
    )

    def __init__(self, camera: Stream, deadline_ns: int) -> None:
        self._deadline_ns = deadline_ns
        self._min_period_ns = int(SECOND / camera.rate_hz)
        self.period_ns = 0
        self.expected_ns = NEVER  # the next frame instant
        self.due_ns = NEVER  # when it is missed for good
        self.last_stamp_ns = 0  # of the last real frame
        self.last_seq = -1

    def start(self, now_ns: int) -> None:
        """The run begins: without a frame for STARTUP_NS the metronome paces alone."""
        self._expect(now_ns + STARTUP_NS)

    def beat(self, stamp_ns: int, seq: int | None) -> None:
        """A FrameSet left for this instant; `seq` is the camera's, None for a missed frame."""
        if seq is not None:
            steps = seq - self.last_seq
            if self.last_seq >= 0 and 0 < steps <= 64:
                period_ns = (stamp_ns - self.last_stamp_ns) // steps
                self.period_ns = min(max(period_ns, self._min_period_ns), _MAX_PERIOD_NS)
            self.last_stamp_ns, self.last_seq = stamp_ns, seq
        elif not self.period_ns:
            self.period_ns = ABSENT_PERIOD_NS
        if self.period_ns:
            self._expect(stamp_ns + self.period_ns)
        else:  # one frame tells no period yet
            self._expect(stamp_ns + STARTUP_NS)

    def skipped(self, frame_ns: int) -> bool:
        """Whether the instant before this frame's is missing (a pause of the recording aside)."""
        return self.expected_ns + self.period_ns // 2 < frame_ns < self.expected_ns + PAUSE_NS

    def overdue(self, now_ns: int) -> int | None:
        """The instant of a frame that should have come by now; None if there is none."""
        if now_ns < self.due_ns:
            return None
        if now_ns - self.due_ns > PAUSE_NS:  # nothing at all came meanwhile: the whole recording paused
            self._expect(now_ns + STARTUP_NS)
            return None
        return self.expected_ns

    def _expect(self, instant_ns: int) -> None:
        self.expected_ns = instant_ns
        self.due_ns = instant_ns + self._deadline_ns
