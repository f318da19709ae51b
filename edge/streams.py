"""The stream table: what each sensor stream is, and how a sample of it is chosen for a camera frame.

One row a stream. `lateness_ns` is a promise to the stream: a sample that arrives sooner than this after its capture is
never missed, whatever the order; beyond it a sample counts from when it arrives. `worth` says how many nanoseconds the
loop may wait, beyond that promise, for a sample that is one nanosecond nearer to the frame; it is spent only where the
stream's own delivery delays say that the wait will pay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edge.drive import topics
from edge.errors import ConfigError

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
# A frame's decision is due this long after its capture: two frames at 20 fps.
DEADLINE_NS: Final = 100 * MS
_MAX_RATE_HZ: Final = 1_000_000


class Policy(Enum):
    """How a stream's sample is chosen for the frame instant T."""

    PACE = "pace"  # the stream whose samples are the frames
    NEAREST = "nearest"  # the one nearest to T
    INTERPOLATE = "interpolate"  # the two around T
    HOLD = "hold"  # the last at or before T, with its age
    WINDOW = "window"  # all of (T - window, T]


@dataclass(frozen=True, slots=True)
class Stream:
    """One row of the table.

    Args:
        name: as in decisions.
        topic: of a drive.
        policy: how its sample is chosen.
        rate_hz: the highest rate it may have; sizes its ring, and tells that nothing lies between two samples.
        lateness_ns: arrivals sooner than this after their capture are always waited for.
        tolerance_ns: a sample older than this at the frame instant does not count.
        ahead_ns: a sample younger than the frame by more than this does not count (NEAREST, INTERPOLATE).
        window_ns: length of a WINDOW.
        silence_ns: without a sample for so long, a stream is silent and nobody waits for it.
        worth: nanoseconds of waiting that one nanosecond nearer is worth.
        required: absent, it makes a frame degraded even if it never came.
        ring: samples that its ring holds.
    """

    name: str
    topic: str
    policy: Policy
    rate_hz: float
    lateness_ns: int
    tolerance_ns: int
    silence_ns: int
    ring: int
    ahead_ns: int = 0
    window_ns: int = 0
    worth: float = 0.0
    required: bool = False


STREAMS: Final = (
    Stream("camera", topics.CAMERA, Policy.PACE, 60, 30 * MS, 0, 1000 * MS, ring=32, required=True),
    Stream("audio", topics.AUDIO, Policy.WINDOW, 125, 20 * MS, 200 * MS, 300 * MS, ring=512, window_ns=1040 * MS),
    Stream("imu", topics.IMU, Policy.WINDOW, 500, 20 * MS, 100 * MS, 200 * MS, ring=1024, window_ns=SECOND),
    Stream("gnss", topics.GNSS, Policy.HOLD, 25, 20 * MS, 1500 * MS, 2500 * MS, ring=64),
    Stream("vehicle", topics.VEHICLE, Policy.INTERPOLATE, 125, 20 * MS, 200 * MS, 300 * MS, ring=192, ahead_ns=25 * MS),
    Stream(
        "lidar", topics.LIDAR, Policy.NEAREST, 12.5, 20 * MS, 150 * MS, 400 * MS, ring=16, ahead_ns=20 * MS, worth=2.0
    ),
)


# Encoder -> the stream that it hears. Costliest first: the overload ladder sheds in this order where all are as fresh.
ENCODERS: Final = {"camera": "camera", "audio": "audio", "lidar": "lidar", "motion": "imu"}


def ring_needed(stream: Stream, deadline_ns: int) -> int:
    """Samples that can be on board at once: those a frame may choose from, and those that come while it waits."""
    reach_ns = max(stream.window_ns, stream.tolerance_ns) + stream.lateness_ns + deadline_ns
    return math.ceil(stream.rate_hz * reach_ns / SECOND) + 1


def validate(streams: tuple[Stream, ...], deadline_ns: int) -> None:
    """Refuse a table that would lose samples or never settle.

    Raises:
        ConfigError: no single pacing stream, a ring shorter than rate x worst lateness, a promise beyond the deadline.
    """
    pacing = [stream.name for stream in streams if stream.policy is Policy.PACE]
    if len(pacing) != 1 or streams[0].name != pacing[0]:
        raise ConfigError(f"streams: expected the one pacing stream first, got {pacing}")
    for row, stream in enumerate(streams):
        if any(stream.name == other.name for other in streams[:row]):
            raise ConfigError(f"stream {stream.name}: expected one row, got two")
        _validate_row(stream, deadline_ns)


def _validate_row(stream: Stream, deadline_ns: int) -> None:
    name = stream.name
    if not 0 < stream.rate_hz <= _MAX_RATE_HZ:
        raise ConfigError(f"stream {name}: expected a positive rate of at most {_MAX_RATE_HZ} Hz, got {stream.rate_hz}")
    times = (stream.lateness_ns, stream.tolerance_ns, stream.silence_ns, stream.ahead_ns, stream.window_ns)
    if min(*times, stream.worth) < 0:
        raise ConfigError(f"stream {name}: expected no negative time or worth, got {stream}")
    if stream.policy is Policy.WINDOW and not stream.window_ns:
        raise ConfigError(f"stream {name}: expected a window longer than 0")
    if stream.worth and stream.policy is not Policy.NEAREST:
        raise ConfigError(f"stream {name}: expected worth only with the policy nearest, got {stream.policy.value}")
    needed = ring_needed(stream, deadline_ns)
    if stream.ring < needed:
        raise ConfigError(
            f"stream {name}: expected a ring of at least {needed} samples "
            f"({stream.rate_hz:g} Hz x worst lateness), got {stream.ring}"
        )
    if stream.ahead_ns + stream.lateness_ns > deadline_ns:
        raise ConfigError(
            f"stream {name}: expected ahead + lateness within the deadline of {deadline_ns / MS:g} ms, "
            f"got {(stream.ahead_ns + stream.lateness_ns) / MS:g} ms"
        )
