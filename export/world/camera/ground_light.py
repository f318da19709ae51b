"""Light on the ground: from above, the ego's low beam, and the pools of street lamps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.camera.light import LAMP_REACH_M, beam
from export.world.weather import Atmosphere

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

SCALE = 8  # light is soft: worked out at an eighth of the picture's size


class GroundLight:
    """Multiplies light into the picture of the ground; laid out for the levelled camera."""

    def __init__(self, lens: Lens) -> None:
        rows = np.arange(lens.height_px // SCALE) * SCALE + 0.5 * SCALE
        depth = lens.ground_depth_m(0.0)[np.minimum(rows.astype(np.int64), lens.height_px - 1)]
        seen = np.isfinite(depth) & (depth < 300.0)
        depth = np.where(seen, depth, 300.0)
        columns = np.arange(lens.width_px // SCALE) * SCALE + 0.5 * SCALE
        left = -(columns[None, :] - 0.5 * lens.width_px) / lens.focal_px * depth[:, None]
        self._left_m = left.astype(np.float32)
        self._ahead_m = np.broadcast_to(depth[:, None] + lens.forward_m, left.shape).astype(np.float32)
        ahead = np.broadcast_to(depth[:, None] + lens.forward_m, left.shape)
        self._beam = (beam(ahead, left, np.zeros_like(left)) * seen[:, None]).astype(np.float32)

    def apply(self, below: U8, top: int, pitch_rad: float, air: Atmosphere, lamps_ego: NDArray[np.float64]) -> None:
        """Lights the rows from `top` down, in place."""
        base = air.ambient * (0.74 + 0.3 * air.shares[0])
        if air.lamps <= 0.3:
            if base < 0.99:
                cv2.convertScaleAbs(below, below, min(base, 1.0))
            return
        light = np.full(self._beam.shape, 255.0 * base, np.float32)
        light += self._beam * (330.0 * air.lamps)
        for lamp_x, lamp_y in lamps_ego:
            self._add_pool(light, float(lamp_x), float(lamp_y), 175.0 * air.lamps)
        full = np.asarray(cv2.resize(np.minimum(light, 255.0), (below.shape[1], len(light) * SCALE)))
        key = full.astype(np.uint8)[top : top + below.shape[0]]
        cv2.multiply(below[: len(key)], cv2.merge([key, key, key]), dst=below[: len(key)], scale=1 / 255.0)

    def _add_pool(self, light: F32, x_m: float, y_m: float, level: float) -> None:
        if x_m < -LAMP_REACH_M:
            return
        distance2 = (self._ahead_m - x_m) ** 2 + (self._left_m - y_m) ** 2
        light += level * np.exp(distance2 * (-1.0 / (0.75 * LAMP_REACH_M) ** 2))
