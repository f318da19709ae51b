"""The grain of the ground: one wrapping texture, fixed to the world, that makes the road move under the wheels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.motion import Pose

U8 = NDArray[np.uint8]

GRAIN_PX = 512
GRAIN_M = 0.045  # one texel
SIGHT_M = 42.0  # beyond, it would only flicker


class Grain:
    """Multiplies the texture into the picture of the ground."""

    def __init__(self, rng: np.random.Generator, lens: Lens, snow: float) -> None:
        self._lens = lens
        self._texture = _texture(rng, snow)

    def apply(self, below: U8, top: int, pose: Pose, tone: float) -> None:
        """Textures the rows from `top` down, in place, and multiplies them by `tone`."""
        rows, width = below.shape[:2]
        pixels = np.array([[0, rows - 1], [width - 1, rows - 1], [0, 12], [width - 1, 12]], np.float64)
        matrix = cv2.getPerspectiveTransform(
            pixels.astype(np.float32), self._texels(pixels, top, pose).astype(np.float32)
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        grain = cv2.warpPerspective(self._texture, matrix, (width, rows), flags=flags, borderMode=cv2.BORDER_WRAP)
        distance = self._lens.ground_depth_m(pose.pitch_rad, pose.heave_m)[top : top + rows]
        weight = np.clip(1.25 - 1.25 * distance / SIGHT_M, 0.0, 1.0)
        weight[:13] = 0.0
        key = np.repeat((weight * 255).astype(np.uint8)[:, None], width, axis=1)
        grain = cv2.addWeighted(cv2.multiply(grain, key, scale=1 / 255.0), 1.0, cv2.bitwise_not(key), 128 / 255.0, 0.0)
        cv2.multiply(below, cv2.merge([grain, grain, grain]), dst=below, scale=tone / 128.0)

    def _texels(self, pixels: NDArray[np.float64], top: int, pose: Pose) -> NDArray[np.float64]:
        """Texture coordinates of the ground seen at picture positions (u, v below `top`)."""
        lens = self._lens
        depth = lens.ground_depth_m(pose.pitch_rad, pose.heave_m)
        ahead = depth[np.minimum(top + pixels[:, 1].astype(np.int64), lens.height_px - 1)]
        angle = lens.down_rad + pose.pitch_rad
        along = ahead * math.cos(angle) + (lens.up_m + pose.heave_m) * math.sin(angle)
        left = -(pixels[:, 0] - 0.5 * lens.width_px) / lens.focal_px * along
        forward = ahead + lens.forward_m
        c, s = math.cos(pose.heading_rad), math.sin(pose.heading_rad)
        period = GRAIN_PX * GRAIN_M
        x = pose.x_m % period + forward * c - left * s
        y = pose.y_m % period + forward * s + left * c
        return np.stack([x, y], axis=1) / GRAIN_M


def _texture(rng: np.random.Generator, snow: float) -> U8:
    """A wrapping texture around 128: fine chips, patches, a few cracks, and where it snows (0..1) white patches."""
    total = rng.normal(0.0, 12.0, (GRAIN_PX, GRAIN_PX)).astype(np.float32)
    for cells, weight in ((8, 6.0), (32, 4.0), (128, 7.0)):
        grid = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        tiled = cv2.resize(np.tile(grid, (3, 3)), (3 * GRAIN_PX, 3 * GRAIN_PX), interpolation=cv2.INTER_CUBIC)
        total += weight * tiled[GRAIN_PX : 2 * GRAIN_PX, GRAIN_PX : 2 * GRAIN_PX]
    if snow:
        drifts = np.zeros_like(total)
        for cells, weight in ((6, 1.0), (20, 0.6), (64, 0.3)):
            grid = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
            tiled = cv2.resize(np.tile(grid, (3, 3)), (3 * GRAIN_PX, 3 * GRAIN_PX), interpolation=cv2.INTER_CUBIC)
            drifts += weight * tiled[GRAIN_PX : 2 * GRAIN_PX, GRAIN_PX : 2 * GRAIN_PX]
        total += 70.0 * np.clip((drifts + 1.3 * snow - 0.9) * 1.5, 0.0, 1.0)
    return np.asarray(np.clip(total + 128.0, 60, 250 if snow else 200), dtype=np.uint8)
