"""What a frame takes from a stream's ring: one `Choice` a policy of the stream table."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from edge.frameset import Pick
from edge.ring import NEVER, Choice, Ring
from edge.streams import Policy, Stream

SILENT: Final = Pick((), 0, "silent")
STALE: Final = Pick((), 0, "stale")
_new: Final = tuple.__new__  # a Pick without the detour over its constructor, six times a frame


def ring_for(stream: Stream) -> Ring:
    """The ring that the stream's row asks for."""
    return Ring(stream, CHOICES[stream.policy])


def take_held(ring: Ring, frame_ns: int) -> Pick:
    """The last sample at or before the frame, however old up to the tolerance."""
    ring.last_frame_ns = frame_ns
    head = ring.head
    at = bisect_right(ring.stamps, frame_ns, head) - 1
    return SILENT if at < head else _take_one(ring, at, frame_ns)


def take_nearest(ring: Ring, frame_ns: int) -> Pick:
    """The sample nearest to the frame, the older one of two equally near."""
    ring.last_frame_ns = frame_ns
    stamps, head = ring.stamps, ring.head
    at = bisect_right(stamps, frame_ns, head)
    ahead_ns = stamps[at] - frame_ns if at < len(stamps) else NEVER
    if ahead_ns > ring.ahead_ns or (at > head and ahead_ns >= frame_ns - stamps[at - 1]):
        at -= 1
    return SILENT if at < head else _take_one(ring, at, frame_ns)


def take_around(ring: Ring, frame_ns: int) -> Pick:
    """The samples on both sides of the frame; one of them where the other is missing."""
    ring.last_frame_ns = frame_ns
    stamps, samples = ring.stamps, ring.samples
    after = bisect_right(stamps, frame_ns, ring.head)
    before = after - 1
    if before > ring.head:
        if ring.behind or before > ring.fresh:
            ring.advance(before)
        else:
            ring.head = before
    age_ns = frame_ns - stamps[before] if after > ring.head else NEVER
    ahead_ns = stamps[after] - frame_ns if age_ns and after < len(stamps) else NEVER  # at the very instant: no other
    picked: tuple[Any, ...]
    if ahead_ns > ring.ahead_ns:
        if age_ns > ring.tolerance_ns:
            return SILENT if age_ns == NEVER else STALE
        picked, end = (samples[before],), after
    elif age_ns > ring.tolerance_ns:
        if after > ring.head:
            ring.advance(after)
        picked, end, age_ns = (samples[after],), after + 1, -ahead_ns
    else:
        picked, end = (samples[before], samples[after]), after + 1
        if ahead_ns < age_ns:
            age_ns = -ahead_ns
    if end > ring.fresh or ring.behind:
        ring.use(end)
    return _new(Pick, (picked, age_ns, ""))


def take_window(ring: Ring, frame_ns: int) -> Pick:
    """All samples of (frame - window, frame]."""
    ring.last_frame_ns = frame_ns
    stamps = ring.stamps
    end = bisect_right(stamps, frame_ns, ring.head)
    start = bisect_right(stamps, frame_ns - ring.window_ns, ring.head, end)
    if start > ring.head:
        if start > ring.fresh or ring.behind:
            ring.advance(start)
        else:
            ring.head = start
    if start == end:
        return SILENT
    age_ns = frame_ns - stamps[end - 1]
    if age_ns > ring.tolerance_ns:
        return STALE
    if ring.behind:
        ring.use(end)
    elif end > ring.fresh:
        ring.used += end - ring.fresh
        ring.fresh = end
    return _new(Pick, (ring.samples[start:end], age_ns, ""))


def needs_nearest(ring: Ring, frame_ns: int) -> int:
    """As far ahead as a sample would be nearer than the nearest."""
    stamps = ring.stamps
    at = bisect_right(stamps, frame_ns, ring.head)
    reach_ns = ring.ahead_ns
    if at > ring.head:
        reach_ns = min(reach_ns, frame_ns - stamps[at - 1] - 1)
    if at < len(stamps):
        reach_ns = min(reach_ns, stamps[at] - frame_ns)
    return frame_ns + max(reach_ns, 0)


def needs_around(ring: Ring, frame_ns: int) -> int:
    """As far as the one after the frame may lie; no further than the frame where one lies on it."""
    stamps = ring.stamps
    at = bisect_right(stamps, frame_ns, ring.head)
    if at > ring.head and stamps[at - 1] == frame_ns:
        return frame_ns
    reach_ns = ring.ahead_ns
    if at < len(stamps):
        reach_ns = min(reach_ns, stamps[at] - frame_ns)
    return frame_ns + reach_ns


def needs_frame(ring: Ring, frame_ns: int) -> int:
    """Nothing after the frame matters."""
    return frame_ns


def _take_one(ring: Ring, at: int, frame_ns: int) -> Pick:
    if ring.behind:
        ring.advance(at)
    else:
        ring.head = at
        if at > ring.fresh:
            ring.fresh = at
    age_ns = frame_ns - ring.stamps[at]
    if age_ns > ring.tolerance_ns:
        return STALE
    if at == ring.fresh:
        ring.used += 1
        ring.fresh = at + 1
    elif ring.behind:
        ring.use(at + 1)
    return _new(Pick, ((ring.samples[at],), age_ns, ""))


CHOICES: Final = {
    Policy.HOLD: Choice(needs_frame, take_held),
    Policy.NEAREST: Choice(needs_nearest, take_nearest),
    Policy.INTERPOLATE: Choice(needs_around, take_around),
    Policy.WINDOW: Choice(needs_frame, take_window),
}
