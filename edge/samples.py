"""The sensor samples that travel through the loop, one class a stream.

Every sample carries its capture instant `stamp_ns` (vehicle monotonic clock) and `seq`, the per-stream counter that its
source gave it at capture; seq decides the order of equal stamps and unmasks losses and duplicates. When a sample
*arrived* is a property of the event that brings it, not of the sample. They are named tuples because hundreds of them
are made, sent and read a second.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray


class Frame(NamedTuple):
    """One camera picture; `stamp_ns` is the start of exposure.

    image: (height, width, 3) uint8, BGR; None while the picture is still JPEG (a frame that is shed is never decoded).
    jpeg: the picture as recorded.
    """

    stamp_ns: int
    seq: int
    image: NDArray[np.uint8] | None
    jpeg: bytes = b""


class AudioChunk(NamedTuple):
    """A block of sound; `stamp_ns` is the instant of its first sample.

    pcm: (samples,) int16, one channel.
    """

    stamp_ns: int
    seq: int
    rate_hz: int
    pcm: NDArray[np.int16]


class ImuSample(NamedTuple):
    """Specific force (m/s2, at rest z = +9.81) and angular rate (rad/s); x forward, y left, z up."""

    stamp_ns: int
    seq: int
    accel_mps2: tuple[float, float, float]
    gyro_radps: tuple[float, float, float]


class GnssFix(NamedTuple):
    """Position (degrees, m) and velocity (m/s east, north, up; None where the receiver gives none)."""

    stamp_ns: int
    seq: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    velocity_enu_mps: tuple[float, float, float] | None = None


class CanFrame(NamedTuple):
    """One frame as it was on the bus."""

    stamp_ns: int
    seq: int
    bus: int
    id: int
    payload: bytes
    is_extended: bool = False


class VehicleState(NamedTuple):
    """What the CAN bus says of the vehicle; a field is None where the bus does not say.

    steering_wheel_angle_rad and yaw_rate_radps: left positive. accelerator and brake: 0..1.
    wheel_speeds_mps: front left, front right, rear left, rear right.
    """

    stamp_ns: int
    seq: int
    speed_mps: float
    steering_wheel_angle_rad: float | None = None
    yaw_rate_radps: float | None = None
    acceleration_mps2: float | None = None
    accelerator: float | None = None
    brake: float | None = None
    driver_in_control: bool | None = None
    wheel_speeds_mps: tuple[float, float, float, float] | None = None


class Sweep(NamedTuple):
    """One LiDAR revolution; `stamp_ns` is its middle.

    points_lidar: (points, 4) float32: x forward, y left, z up (m) in the LiDAR frame, and intensity 0..1.
    """

    stamp_ns: int
    seq: int
    points_lidar: NDArray[np.float32]


class RigMessage(NamedTuple):
    """How sensors sit to each other, as recorded: topics.CALIBRATION or topics.TRANSFORM."""

    topic: str
    payload: bytes


class BundleInUse(NamedTuple):
    """Which bundle decides from here on.

    Attributes:
        previous_id: of the bundle that is put back when this one fails; "" where none is.
        why: start, armed, active or stopped.
    """

    bundle_id: str
    previous_id: str
    why: str


Sample: TypeAlias = Frame | AudioChunk | ImuSample | GnssFix | CanFrame | VehicleState | Sweep
NOT_FUSED: Final = -1


class Event(NamedTuple):
    """Something arrived.

    Attributes:
        now_ns: when, on the vehicle's monotonic clock.
        row: of the stream table; NOT_FUSED for what is only recorded, a RigMessage, a ProbeSet or a BundleInUse.
        sample: None where its content could not be decoded, or is only recorded.
        size_bytes: of the recorded message.
    """

    now_ns: int
    row: int
    sample: Any
    size_bytes: int
