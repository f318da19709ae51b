"""Edges as camera and LiDAR see them: where the range jumps, and where the picture's brightness does.

Two kinds are kept apart, since each pins other directions: *across* (range jumps along a ring; brightness changes
sideways) and *upward* (between rings; brightness changes up and down).

A jump counts only where the surface's own slope does not explain it: on a plane the inverse range is linear in the
angle, so a road seen at a grazing angle makes no edge, however far apart its rings lie. The edge lies half-way between
the two rays, at the nearer range; without that the coarse angle between rings would tilt the result.

Ref: Levinson, Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import DriveFormatError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
# (least angle between neighbours that still are neighbours, deg; least jump, m; least jump as share of the range)
_ACROSS: Final = (1.5, 0.3, 0.03)
_UPWARD: Final = (1.6, 1.0, 0.1)
_MAX_WEIGHT_M: Final = 10.0
_LEAST_RANGE_M: Final = 0.5
_RINGS: Final = (4, 256)


def range_edges(path: Path, points_lidar: NDArray[np.float32]) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    """Edges across and upward, each (n, 3) points in the LiDAR frame (m) and (n,) weights.

    Args:
        path: of the drive, for messages.
        points_lidar: (n, 4) one sweep, recorded ring by ring (as KITTI's and the world's are).

    Raises:
        DriveFormatError: the points do not come ring by ring.
    """
    points = points_lidar[:, :3].astype(np.float64)
    range_m = np.linalg.norm(points, axis=1)
    points, range_m = points[range_m > _LEAST_RANGE_M], range_m[range_m > _LEAST_RANGE_M]
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    ring = np.concatenate([[0], np.cumsum(np.abs(np.diff(azimuth)) > np.pi)]) if len(points) else np.zeros(0, np.int64)
    count = int(ring[-1]) + 1 if len(ring) else 0
    if not _RINGS[0] <= count <= _RINGS[1]:
        raise DriveFormatError(
            f"{path}: expected sweeps recorded ring by ring, {_RINGS[0]} to {_RINGS[1]}, got {count}"
        )
    rays = points / range_m[:, None]
    same = np.flatnonzero(ring[1:] == ring[:-1])
    same = same[(same > 0) & (same < len(points) - 2)]
    sideways = [
        _jumps(rays, range_m, *three, *_ACROSS) for three in ((same, same + 1, same - 1), (same + 1, same, same + 2))
    ]
    upward = [_jumps(rays, range_m, *three, *_UPWARD) for three in _stacked(ring, azimuth, count)]
    return _joined(sideways), _joined(upward)


def picture_edges(picture: NDArray[np.uint8], blur_px: float) -> tuple[F32, F32]:
    """How strong the edges across and upward are around each pixel, standardised to mean 0 and deviation 1."""
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.0)
    maps = []
    for dx, dy in ((1, 0), (0, 1)):
        strength = np.abs(cv2.Sobel(smooth, cv2.CV_32F, dx, dy))
        strength = np.minimum(strength / (np.percentile(strength, 95) + 1e-3), 1.0).astype(np.float32)
        around = cv2.GaussianBlur(strength, (0, 0), blur_px)
        maps.append(np.asarray((around - around.mean()) / max(float(around.std()), 1e-6), np.float32))
    return maps[0], maps[1]


def _stacked(
    ring: NDArray[np.int64], azimuth: F64, count: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """(point, nearest in one neighbouring ring, nearest in the other), both ways; the point itself where none is."""
    rings = [np.flatnonzero(ring == number) for number in range(count)]
    rings = [members[np.argsort(azimuth[members])] for members in rings]

    def nearest(own: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        if not 0 <= number < count or len(rings[number]) < 2:
            return own
        others = azimuth[rings[number]]
        right = np.clip(np.searchsorted(others, azimuth[own]), 1, len(others) - 1)
        is_left = np.abs(others[right - 1] - azimuth[own]) < np.abs(others[right] - azimuth[own])
        return rings[number][right - is_left]

    threes = []
    for number, own in enumerate(rings):
        one, other = nearest(own, number + 1), nearest(own, number - 1)
        threes += [(own, one, other), (own, other, one)]
    return threes


def _jumps(
    rays: F64, range_m: F64, near: NDArray[np.int64], far: NDArray[np.int64], behind: NDArray[np.int64],
    widest_deg: float, least_m: float, least_share: float,
) -> tuple[F64, F64]:  # fmt: skip
    """Edges between `near` and `far` that the slope from `behind` to `near` does not explain."""
    neighbours = np.cos(np.radians(widest_deg))
    inverse = 1.0 / range_m
    jump_m = range_m[far] - range_m[near]
    drop = inverse[near] - inverse[far]
    known = ((rays[near] * rays[behind]).sum(axis=1) > neighbours) & (behind != near)
    slope = np.where(known, inverse[behind] - inverse[near], 0.0)
    is_edge = (
        ((rays[near] * rays[far]).sum(axis=1) > neighbours)
        & (jump_m > np.maximum(least_m, least_share * range_m[near]))
        & (drop - slope > 0.5 * drop)
    )
    middle = rays[near[is_edge]] + rays[far[is_edge]]
    middle *= (range_m[near[is_edge]] / np.linalg.norm(middle, axis=1))[:, None]
    return middle, np.sqrt(np.minimum(jump_m[is_edge], _MAX_WEIGHT_M))


def _joined(parts: list[tuple[F64, F64]]) -> tuple[F64, F64]:
    return np.concatenate([points for points, _ in parts]), np.concatenate([weights for _, weights in parts])
