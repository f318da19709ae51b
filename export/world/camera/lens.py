"""The pinhole camera behind the windscreen: from the ego frame into pixels.

Points are in the levelled ego frame (x forward, y left, z up, origin on the ground below the ego's middle); the body's
pitch turns the camera about its own centre, its heave lifts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

NEAR_M = 0.25
SHIFT = 4  # fractional bits of the corners handed to the polygon filler


@dataclass(frozen=True, slots=True)
class Lens:
    """Intrinsics (square pixels, no distortion) and where the camera sits: forward and up (m), pitched down (rad)."""

    width_px: int = 640
    height_px: int = 384
    focal_px: float = 500.0
    forward_m: float = 1.25
    up_m: float = 1.38
    down_rad: float = 0.035

    @classmethod
    def of_size(cls, width_px: int, height_px: int) -> Lens:
        """The same field of view across at another picture size."""
        return cls(width_px, height_px, 500.0 * width_px / 640.0)

    def to_camera(self, points_ego: F64, pitch_rad: float, heave_m: float = 0.0) -> F64:
        """(..., 3) ego points as x right, y down, z along the optical axis (m)."""
        angle = self.down_rad + pitch_rad
        c, s = math.cos(angle), math.sin(angle)
        forward, up = points_ego[..., 0] - self.forward_m, points_ego[..., 2] - (self.up_m + heave_m)
        return np.stack([-points_ego[..., 1], -(forward * s + up * c), forward * c - up * s], axis=-1)

    def to_pixels(self, points_camera: F64) -> F64:
        """(..., 2) pixels of camera points; meaningless where z <= 0."""
        depth = np.maximum(points_camera[..., 2:3], 1e-3)
        return points_camera[..., :2] * (self.focal_px / depth) + (0.5 * self.width_px, 0.5 * self.height_px)

    def project(self, points_ego: F64, pitch_rad: float, heave_m: float = 0.0) -> tuple[F64, F64]:
        """Pixels (..., 2) and depth (...) of ego points."""
        camera = self.to_camera(points_ego, pitch_rad, heave_m)
        return self.to_pixels(camera), camera[..., 2]

    def horizon_px(self, pitch_rad: float) -> float:
        """Row of the horizon."""
        return 0.5 * self.height_px - self.focal_px * math.tan(self.down_rad + pitch_rad)

    def ground_depth_m(self, pitch_rad: float, heave_m: float = 0.0) -> F64:
        """Horizontal distance to the ground per picture row (inf above the horizon)."""
        rows = (np.arange(self.height_px) + 0.5 - 0.5 * self.height_px) / self.focal_px
        angle = self.down_rad + pitch_rad + np.arctan(rows)
        with np.errstate(divide="ignore"):
            return np.where(angle > 1e-4, (self.up_m + heave_m) / np.tan(np.maximum(angle, 1e-4)), np.inf)

    def rotation_ego_SE3_cam(self) -> tuple[float, float, float, float]:
        """Quaternion (x, y, z, w) that turns optical axes into ego axes, for the levelled body."""
        c, s = math.cos(self.down_rad), math.sin(self.down_rad)
        m = np.array([[0.0, -s, c], [-1.0, 0.0, 0.0], [0.0, -c, -s]])
        w = 0.5 * math.sqrt(max(1.0 + m[0, 0] + m[1, 1] + m[2, 2], 1e-12))
        return (
            float((m[2, 1] - m[1, 2]) / (4 * w)),
            float((m[0, 2] - m[2, 0]) / (4 * w)),
            float((m[1, 0] - m[0, 1]) / (4 * w)),
            w,
        )


def clip_near(polygon_camera: F64) -> F64:
    """The part of a (n, 3) convex polygon in front of the near plane; may be empty."""
    kept: list[F64] = []
    count = len(polygon_camera)
    for i in range(count):
        a, b = polygon_camera[i], polygon_camera[(i + 1) % count]
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] - NEAR_M) * (b[2] - NEAR_M) < 0.0:
            kept.append(a + (b - a) * ((NEAR_M - a[2]) / (b[2] - a[2])))
    return np.array(kept) if len(kept) >= 3 else np.empty((0, 3))


def clip_to_picture(polygon_px: F64, width_px: int, height_px: int) -> list[tuple[float, float]]:
    """The corners of a (n, 2) convex polygon's part inside the picture; may be empty."""
    corners = [(float(x), float(y)) for x, y in polygon_px]
    for axis, limit, sign in ((0, 0.0, 1.0), (0, float(width_px), -1.0), (1, 0.0, 1.0), (1, float(height_px), -1.0)):
        kept: list[tuple[float, float]] = []
        for a, b in zip(corners, corners[1:] + corners[:1]):
            inside_a, inside_b = sign * (a[axis] - limit), sign * (b[axis] - limit)
            if inside_a >= 0.0:
                kept.append(a)
            if inside_a * inside_b < 0.0:
                f = inside_a / (inside_a - inside_b)
                kept.append((a[0] + (b[0] - a[0]) * f, a[1] + (b[1] - a[1]) * f))
        corners = kept
    return corners


def fixed_corners(pixels: F64, scale: int = 1) -> NDArray[np.int32]:
    """Corners in the polygon filler's fixed point for a picture `scale` times smaller.

    Pixel i covers i..i+1 here, while the filler counts from pixel centres: hence the half.
    """
    return np.round((np.clip(pixels, -4000, 5000) / scale - 0.5) * (1 << SHIFT)).astype(np.int32)
