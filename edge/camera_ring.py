"""The ring of the stream that paces: frames that wait for their FrameSet, each of which leaves once.

The camera's clock says where all others are looked for, so a camera whose clock is set, or that restarts, must not be
refused for ever. Its stamps are then shifted onto the vehicle's clock:

    the number goes on but the stamp goes back, or lies in the future      at once
    for a while nothing came but old numbers or frames long overdue        then

The shift puts the frame as long before its arrival as the last good frame was.
"""

from __future__ import annotations

from typing import Final

from edge.frameset import Pick
from edge.gap import UNSEEN
from edge.ring import CLOCK_SLACK_NS, NEVER, Choice, Ring
from edge.samples import Frame
from edge.streams import Stream


class CameraRing(Ring):
    """Frames that wait, sorted by stamp.

    Attributes:
        offset_ns: what is added to the camera's stamps; 0 unless its clock went wrong.
        closed_ns: frames from before this instant are too late.
    """

    __slots__ = ("_delay_ns", "_refused_since_ns", "closed_ns", "offset_ns")

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, _LEAVES)
        self.offset_ns = 0
        self.closed_ns = self.newest_ns
        self._delay_ns = 0  # of the last good frame
        self._refused_since_ns = NEVER

    def push(self, sample: Frame, now_ns: int) -> bool:
        seq, stamp_ns = sample.seq, sample.stamp_ns + self.offset_ns
        earliest_ns = max(self.newest_ns, self.closed_ns)
        if seq == self.next_seq and earliest_ns <= stamp_ns <= now_ns and len(self.stamps) < self.capacity:
            self.next_seq = seq + 1
            self.newest_ns = stamp_ns
            self._delay_ns = now_ns - stamp_ns
            self._refused_since_ns = NEVER
            self.stamps.append(stamp_ns)
            self.samples.append(sample)
            return True
        if self._is_clock_wrong(stamp_ns, seq, now_ns):
            stamp_ns = self._shift(sample.stamp_ns, now_ns)
        self._push_irregular(sample, stamp_ns, now_ns)
        return True

    def holds_until(self, frame_ns: int, now_ns: int) -> int:
        """Until when a frame captured up to this instant, but overtaken, may come; 0 if none may."""
        if self.bound_ns(now_ns) >= frame_ns or not self.gap.missing:
            return 0
        return min(self.gap.until_ns, frame_ns + self.lateness_ns)

    def leave(self) -> Frame:
        """The oldest frame, which is due."""
        self.closed_ns = self.stamps.pop(0)
        self.used += 1
        self.left += 1
        frame: Frame = self.samples.pop(0)
        return frame

    def miss(self, instant_ns: int) -> None:
        """No frame came for this instant."""
        self.closed_ns = instant_ns + 1

    def _is_late(self, stamp_ns: int) -> bool:
        return stamp_ns < self.closed_ns

    def _refusal(self, stamp_ns: int, seq: int, now_ns: int) -> str:
        refusal = super()._refusal(stamp_ns, seq, now_ns)
        if not refusal:
            self._delay_ns = max(now_ns - stamp_ns, 0)
            self._refused_since_ns = NEVER
        elif self._refused_since_ns == NEVER:
            self._refused_since_ns = now_ns
        return refusal

    def _is_clock_wrong(self, stamp_ns: int, seq: int, now_ns: int) -> bool:
        silence_ns = self.stream.silence_ns
        if now_ns - self._refused_since_ns > silence_ns and now_ns - stamp_ns > silence_ns:
            return True
        if seq < self.next_seq:  # a straggler or a re-delivery: no news of the clock
            return False
        earliest_ns = now_ns - silence_ns if self.next_seq == UNSEEN else self.newest_ns
        return not earliest_ns <= stamp_ns <= now_ns + CLOCK_SLACK_NS

    def _shift(self, stamp_ns: int, now_ns: int) -> int:
        """Choose the shift for this stamp (none, if the clock is right again) and apply it."""
        earliest_ns = max(self.newest_ns, self.closed_ns)
        is_right = max(earliest_ns, now_ns - self.stream.silence_ns) <= stamp_ns <= now_ns
        shifted_ns = stamp_ns if is_right else max(now_ns - self._delay_ns, earliest_ns)
        self.offset_ns = shifted_ns - stamp_ns
        return shifted_ns


def _needs_nothing(ring: Ring, frame_ns: int) -> int:
    return frame_ns


def _never_taken(ring: Ring, frame_ns: int) -> Pick:
    raise NotImplementedError("frames leave the camera's ring")


_LEAVES: Final = Choice(_needs_nothing, _never_taken)
