"""The ego's motion on a 200 Hz grid, and what IMU, GNSS and the vehicle bus measure of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.samples import GnssFix, ImuSample, VehicleState
from export.world import can
from export.world.bumps import WHEELBASE_M, Bump, blows, ride
from export.world.road import Road
from export.world.seeds import generator
from export.world.track import Track

F64 = NDArray[np.float64]

RATE_HZ = 200
GRAVITY_MPS2 = 9.80665
TRACK_WIDTH_M, STEERING_RATIO = 1.55, 15.5
PITCH_PER_MPS2 = 0.0035  # nose dives by this much (rad) per m/s2 of braking
EQUATOR_M, FLATTENING = 6_378_137.0, 1.0 / 298.257223563


@dataclass(frozen=True, slots=True)
class Pose:
    """The ego at one instant: world position (m), heading and nose-down pitch (rad), speed (m/s), rates, heave (m)."""

    x_m: float
    y_m: float
    heading_rad: float
    pitch_rad: float
    speed_mps: float
    yaw_rate_radps: float
    acceleration_mps2: float
    heave_m: float = 0.0

    def to_ego(self, x_m: F64, y_m: F64) -> tuple[F64, F64]:
        """World points as forward and left distances (m) from the ego's middle."""
        dx, dy = x_m - self.x_m, y_m - self.y_m
        c, s = math.cos(self.heading_rad), math.sin(self.heading_rad)
        return dx * c + dy * s, dy * c - dx * s


class Motion:
    """The ego's pose at any time of the drive, and the inertial quantities that belong to it."""

    def __init__(self, seed: int, road: Road, ego: Track, bumps: Sequence[Bump] = ()) -> None:
        self._seed = seed
        times = ego.times_s()
        self.time_s = np.arange(round(times[-1] * RATE_HZ)) / RATE_HZ
        s = _hermite(times, ego.s_m, ego.speed_mps, self.time_s)
        d = _smooth(np.interp(self.time_s, times, ego.d_m), 41)
        self.x_m, self.y_m, reference = road.position(s, d)
        drift = np.gradient(d, 1.0 / RATE_HZ)
        self.speed_mps = np.interp(self.time_s, times, ego.speed_mps)
        self.heading_rad = _smooth(reference + np.arctan2(drift, np.maximum(self.speed_mps, 2.0)), 21)
        self.s_m, self.d_m = s, d
        self.acceleration_mps2 = np.interp(self.time_s, times, ego.acceleration_mps2)
        self.blows = blows(bumps, self.time_s, s, self.speed_mps)
        self.heave_m, jolted_rad, self._lift_mps2 = ride(self.blows, self.time_s)
        self.pitch_rad = self._pitch() + jolted_rad
        self.yaw_rate_radps = np.gradient(self.heading_rad, 1.0 / RATE_HZ)
        ax = np.gradient(np.gradient(self.x_m, 1.0 / RATE_HZ), 1.0 / RATE_HZ)
        ay = np.gradient(np.gradient(self.y_m, 1.0 / RATE_HZ), 1.0 / RATE_HZ)
        c, si = np.cos(self.heading_rad), np.sin(self.heading_rad)
        self.forward_mps2 = _smooth(ax * c + ay * si, 9)
        self.left_mps2 = _smooth(ay * c - ax * si, 9)
        rng = generator(seed, "imu")
        self._gyro_bias = rng.normal(0.0, 0.0008, 3)
        self._accel_bias = rng.normal(0.0, 0.015, 3)
        self._rumble = float(rng.uniform(0.5, 1.5))

    def _pitch(self) -> F64:
        """Braking dive and road roughness through a damped suspension of about 1.3 Hz."""
        rough = generator(self._seed, "roughness").normal(0.0, 1.0, len(self.time_s))
        rough = _smooth(_smooth(rough, 31), 31) * np.minimum(self.speed_mps / 15.0, 1.3) * 0.004
        dive = -_smooth(self.acceleration_mps2, 81) * PITCH_PER_MPS2
        return dive + rough

    def pose(self, time_s: float) -> Pose:
        """The pose at a drive time."""
        at = min(max(time_s * RATE_HZ, 0.0), len(self.time_s) - 2.0)
        i = int(at)
        f = at - i

        def lerp(values: F64) -> float:
            return float(values[i] * (1.0 - f) + values[i + 1] * f)

        return Pose(
            lerp(self.x_m), lerp(self.y_m), lerp(self.heading_rad), lerp(self.pitch_rad), lerp(self.speed_mps),
            lerp(self.yaw_rate_radps), lerp(self.acceleration_mps2), lerp(self.heave_m),
        )  # fmt: skip

    def station_m(self, time_s: float) -> tuple[float, float]:
        """Station and offset of the ego on the road."""
        return (
            float(np.interp(time_s, self.time_s, self.s_m)),
            float(np.interp(time_s, self.time_s, self.d_m)),
        )

    def imu(self, time_s: F64, stamps_ns: list[int], first_seq: int) -> list[ImuSample]:
        """IMU samples at drive times, with bias, noise and road vibration (sensor in the ego's middle)."""
        count = len(time_s)
        rng = generator(self._seed, "imu", first_seq)
        pitch = np.interp(time_s, self.time_s, self.pitch_rad)
        pitch_rate = np.interp(time_s, self.time_s, np.gradient(self.pitch_rad, 1.0 / RATE_HZ))
        forward = np.interp(time_s, self.time_s, self.forward_mps2)
        speed = np.interp(time_s, self.time_s, self.speed_mps)
        shake = (0.02 + 0.012 * self._rumble * np.sqrt(speed))[:, None]
        accel = np.empty((count, 3))
        accel[:, 0] = forward * np.cos(pitch) - GRAVITY_MPS2 * np.sin(pitch)
        accel[:, 1] = np.interp(time_s, self.time_s, self.left_mps2)
        accel[:, 2] = GRAVITY_MPS2 * np.cos(pitch) + forward * np.sin(pitch)
        accel[:, 2] += np.interp(time_s, self.time_s, self._lift_mps2)
        accel += self._accel_bias + rng.normal(0.0, 1.0, (count, 3)) * shake * np.array([0.6, 0.6, 1.4])
        gyro = np.zeros((count, 3))
        gyro[:, 1] = pitch_rate
        gyro[:, 2] = np.interp(time_s, self.time_s, self.yaw_rate_radps)
        gyro += self._gyro_bias + rng.normal(0.0, 0.0025, (count, 3))
        return [
            ImuSample(stamp, first_seq + i, (a[0], a[1], a[2]), (g[0], g[1], g[2]))
            for i, (stamp, a, g) in enumerate(zip(stamps_ns, accel.tolist(), gyro.tolist()))
        ]

    def gnss(self, time_s: float, stamp_ns: int, seq: int, fix: int) -> GnssFix:
        """One fix; the position error wanders slowly, the velocity error is white."""
        pose = self.pose(time_s)
        rng = generator(self._seed, "gnss", fix)
        origin = generator(self._seed, "origin")
        latitude0, longitude0 = float(origin.uniform(44.0, 55.0)), float(origin.uniform(2.0, 18.0))
        altitude0 = float(origin.uniform(20.0, 480.0))
        phases = origin.uniform(0.0, 2 * math.pi, 3)
        wander = [1.1 * math.sin(0.05 * time_s + p) + 0.4 * math.sin(0.21 * time_s + 2 * p) for p in phases]
        noise = rng.normal(0.0, 1.0, 6)
        east = pose.x_m + wander[0] + 0.08 * float(noise[0])
        north = pose.y_m + wander[1] + 0.08 * float(noise[1])
        latitude, longitude = geodetic_deg(latitude0, longitude0, east, north)
        v_east = pose.speed_mps * math.cos(pose.heading_rad) + 0.05 * float(noise[3])
        v_north = pose.speed_mps * math.sin(pose.heading_rad) + 0.05 * float(noise[4])
        altitude = altitude0 + 1.5 * wander[2] + 0.2 * float(noise[2])
        return GnssFix(stamp_ns, seq, latitude, longitude, altitude, (v_east, v_north, 0.08 * float(noise[5])))

    def vehicle(self, time_s: float, stamp_ns: int, seq: int) -> VehicleState:
        """What the bus says at a drive time, in the bus's own quantisation."""
        pose = self.pose(time_s)
        wheel_angle = math.atan2(WHEELBASE_M * pose.yaw_rate_radps, max(pose.speed_mps, 2.0))
        half = 0.5 * TRACK_WIDTH_M * pose.yaw_rate_radps
        left, right = max(pose.speed_mps - half, 0.0), max(pose.speed_mps + half, 0.0)
        wheels = (left / max(math.cos(wheel_angle), 0.5), right / max(math.cos(wheel_angle), 0.5), left, right)
        drag = 0.12 + 0.0006 * pose.speed_mps**2
        push = pose.acceleration_mps2 + drag
        return can.quantised(
            VehicleState(
                stamp_ns, seq, pose.speed_mps, wheel_angle * STEERING_RATIO, pose.yaw_rate_radps,
                pose.acceleration_mps2, min(max(push / 3.5, 0.0), 1.0), min(max(-push / 8.0, 0.0), 1.0), True, wheels,
            )
        )  # fmt: skip


def geodetic_deg(latitude0_deg: float, longitude0_deg: float, east_m: float, north_m: float) -> tuple[float, float]:
    """WGS84 latitude and longitude of a point near an origin, through the ellipsoid's radii of curvature there."""
    e2 = FLATTENING * (2.0 - FLATTENING)
    sin2 = math.sin(math.radians(latitude0_deg)) ** 2
    meridian = EQUATOR_M * (1.0 - e2) / (1.0 - e2 * sin2) ** 1.5
    normal = EQUATOR_M / math.sqrt(1.0 - e2 * sin2)
    longitude = longitude0_deg + math.degrees(east_m / (normal * math.cos(math.radians(latitude0_deg))))
    return latitude0_deg + math.degrees(north_m / meridian), longitude


def _hermite(times: F64, values: F64, slopes: F64, at: F64) -> F64:
    """Cubic interpolation on a uniform grid with known slopes."""
    step = times[1] - times[0]
    i = np.clip(((at - times[0]) / step).astype(np.int64), 0, len(times) - 2)
    f = (at - times[0]) / step - i
    f2, f3 = f * f, f * f * f
    return np.asarray(
        (2 * f3 - 3 * f2 + 1) * values[i]
        + (f3 - 2 * f2 + f) * step * slopes[i]
        + (3 * f2 - 2 * f3) * values[i + 1]
        + (f3 - f2) * step * slopes[i + 1]
    )


def _smooth(values: F64, width: int) -> F64:
    """Moving mean over an odd number of entries, twice, ends held."""
    kernel = np.full(width, 1.0 / width)
    half = width // 2
    for _ in range(2):
        values = np.convolve(np.pad(values, half, mode="edge"), kernel, mode="valid")
    return values
