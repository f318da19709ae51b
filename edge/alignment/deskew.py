"""A LiDAR sweep as if taken at one instant: every point moved by what the vehicle drove between its instant and that.

At 30 m/s a revolution of 100 ms smears the world over 3 m. Frames: x forward, y left, z up (m); the LiDAR's axes are
taken as parallel to the vehicle's. Offsets are seconds after the instant that all points are moved to (Sweep.stamp_ns,
the middle of the revolution). What moves by itself stays smeared: only the vehicle's motion is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import AlignmentError
from edge.samples import ImuSample

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_STRAIGHT_RAD: Final = 1e-6  # a turn below this is a straight line to float64's precision
_NS: Final = 1e-9


def azimuth_offsets(points_lidar: F32, period_s: float, cut_rad: float = np.pi, clockwise: bool = False) -> F64:
    """(n,) offsets of the points of one revolution, from where the spinning head looked.

    Args:
        points_lidar: (n, 2 or more) of one revolution.
        period_s: of a revolution.
        cut_rad: azimuth (0 ahead, left positive) at which a revolution begins and ends.
        clockwise: seen from above.

    Raises:
        AlignmentError: no time in a revolution.
    """
    if not period_s > 0.0:
        raise AlignmentError(f"de-skew: expected a revolution to take time, got {period_s:g} s")
    azimuth = np.arctan2(points_lidar[:, 1], points_lidar[:, 0], dtype=np.float64)
    turned = (cut_rad - azimuth if clockwise else azimuth - cut_rad) % (2 * np.pi)
    offsets: F64 = (turned / (2 * np.pi) - 0.5) * period_s
    return offsets


def deskewed(
    points_lidar: F32, offsets_s: F64 | float, speed_mps: float, yaw_rate_radps: float, forward_m: float = 0.0
) -> F32:
    """The points where they would have been measured at offset 0, at constant speed and turn rate.

    One offset for all moves a whole sweep to another instant.

    Args:
        points_lidar: (n, 3 or more) float32; further columns are kept.
        offsets_s: (n,) or one for all.
        speed_mps: of the vehicle, along x.
        yaw_rate_radps: left positive.
        forward_m: of the LiDAR before the point that the vehicle turns about (the rear axle).
    """
    turn = yaw_rate_radps * np.asarray(offsets_s, np.float64)
    # sin(a)/a and (1-cos(a))/a: the chord of the arc, along and across the first heading
    safe = np.where(np.abs(turn) < _STRAIGHT_RAD, 1.0, turn)
    along = np.where(np.abs(turn) < _STRAIGHT_RAD, 1.0, np.sin(safe) / safe)
    across = np.where(np.abs(turn) < _STRAIGHT_RAD, 0.5 * turn, (1.0 - np.cos(safe)) / safe)
    driven_m = speed_mps * np.asarray(offsets_s, np.float64)
    c, s = np.cos(turn), np.sin(turn)
    x, y = points_lidar[:, 0] + forward_m, points_lidar[:, 1]
    moved = points_lidar.copy()
    moved[:, 0] = c * x - s * y + along * driven_m - forward_m
    moved[:, 1] = s * x + c * y + across * driven_m
    return moved


def deskewed_by_imu(
    points_lidar: F32, offsets_s: F64, stamp_ns: int, imu: Sequence[ImuSample], speed_mps: float
) -> F32:
    """As `deskewed`, with the turn about all three axes as the gyroscope felt it: pitching and rolling count.

    Args:
        stamp_ns: of offset 0.
        imu: by stamp; beyond the first and the last the rate is held.
        speed_mps: of the vehicle, along x, over the sweep.

    Raises:
        AlignmentError: no IMU samples.
    """
    if not imu:
        raise AlignmentError("de-skew: expected IMU samples around the sweep, got none")
    if not len(points_lidar):
        return points_lidar.copy()
    knots_s, turns_rad, driven_m = _track(stamp_ns, imu, speed_mps, float(np.min(offsets_s)), float(np.max(offsets_s)))
    turn = np.stack([np.interp(offsets_s, knots_s, turns_rad[:, axis]) for axis in range(3)], axis=1)
    shift = np.stack([np.interp(offsets_s, knots_s, driven_m[:, axis]) for axis in range(3)], axis=1)
    moved = points_lidar.copy()
    moved[:, :3] = _rotated(points_lidar[:, :3].astype(np.float64), turn) + shift
    return moved


def _track(
    stamp_ns: int, imu: Sequence[ImuSample], speed_mps: float, first_s: float, last_s: float
) -> tuple[F64, F64, F64]:
    """Knots in time (s after the stamp), and there the turn (rotation vector, rad) and the way (m) since the stamp.

    Turns within a sweep are small, so rotation vectors are added.
    """
    stamps_s = np.array([sample.stamp_ns - stamp_ns for sample in imu], np.int64) * _NS
    rates_radps = np.array([sample.gyro_radps for sample in imu], np.float64)
    knots_s = np.unique(np.concatenate([stamps_s, [min(first_s, 0.0), 0.0, max(last_s, 0.0)]]))
    rates = np.stack([np.interp(knots_s, stamps_s, rates_radps[:, axis]) for axis in range(3)], axis=1)
    turns_rad = _integral(knots_s, rates)
    headings = _rotated(np.tile([speed_mps, 0.0, 0.0], (len(knots_s), 1)), turns_rad)
    return knots_s, turns_rad, _integral(knots_s, headings)


def _integral(knots_s: F64, rates: F64) -> F64:
    """(n, 3) trapezoids from the instant 0, which is one of the knots."""
    steps = 0.5 * (rates[1:] + rates[:-1]) * np.diff(knots_s)[:, None]
    total = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    result: F64 = total - total[np.searchsorted(knots_s, 0.0)]
    return result


def _rotated(points: F64, turns_rad: F64) -> F64:
    """Each point turned by its own rotation vector (Rodrigues)."""
    angle = np.sqrt((turns_rad**2).sum(axis=1, keepdims=True))
    axis = turns_rad / np.maximum(angle, 1e-12)
    along = (axis * points).sum(axis=1, keepdims=True)
    c, s = np.cos(angle), np.sin(angle)
    rotated: F64 = points * c + np.cross(axis, points) * s + axis * along * (1.0 - c)
    return rotated
