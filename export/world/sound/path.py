"""From a moving source to the moving microphone: when a sound was emitted, how far away, from where.

The Doppler shift is not computed: it is what evaluating a source's phase at the emission times sounds like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.world.motion import Motion
from export.world.road import Road
from export.world.track import Track

F64 = NDArray[np.float64]

SOUND_MPS = 343.0
PATH_RATE_HZ = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """Per audio sample: emission time (s), distance (m), direction of arrival (rad, left positive)."""

    emitted_s: F64
    distance_m: F64
    bearing_rad: F64


class SourcePath:
    """World positions of one track over its life."""

    def __init__(self, road: Road, track: Track) -> None:
        self.time_s = track.times_s()
        self.x_m, self.y_m, _ = road.position(track.s_m, track.d_m)

    def heard(self, motion: Motion, time_s: F64) -> Heard:
        """What arrives at the microphone (in the ego's middle) at these times."""
        grid = np.arange(math.floor(time_s[0] * PATH_RATE_HZ), math.ceil(time_s[-1] * PATH_RATE_HZ) + 2) / PATH_RATE_HZ
        ego_x = np.interp(grid, motion.time_s, motion.x_m)
        ego_y = np.interp(grid, motion.time_s, motion.y_m)
        emitted = grid.copy()
        for _ in range(4):
            dx = np.interp(emitted, self.time_s, self.x_m) - ego_x
            dy = np.interp(emitted, self.time_s, self.y_m) - ego_y
            distance = np.hypot(dx, dy)
            emitted = grid - distance / SOUND_MPS
        heading = np.interp(grid, motion.time_s, motion.heading_rad)
        bearing = np.arctan2(dy, dx) - heading
        bearing = np.unwrap(np.arctan2(np.sin(bearing), np.cos(bearing)))
        return Heard(
            np.interp(time_s, grid, emitted), np.interp(time_s, grid, distance), np.interp(time_s, grid, bearing)
        )
