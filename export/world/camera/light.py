"""How bright a point is: light from above, the sun, the ego's low beam, street lamps, and the air in between."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from export.world.weather import Atmosphere

F64 = NDArray[np.float64]

LAMP_REACH_M = 11.0


def beam(x_m: F64, y_m: F64, z_m: F64) -> F64:
    """Low beam at points of the ego frame, 0..1: wide and bright near, cut off above about a metre."""
    ahead = np.maximum(x_m - 2.2, 0.3)
    azimuth = np.arctan2(y_m, ahead)
    across = np.exp(-((azimuth / 0.38) ** 2)) * 0.75 + np.exp(-(((azimuth + 0.06) / 0.14) ** 2)) * 0.6
    cut = 1.0 / (1.0 + np.exp((z_m - 0.75 - 0.012 * ahead) * 4.0)) * 0.85 + 0.15
    near = 1.0 / (1.0 + np.exp(-(ahead - 2.5) * 1.2))
    return np.asarray(across * cut * near / (1.0 + (ahead / 24.0) ** 2) * (x_m > 2.0))


def pools(x_m: F64, y_m: F64, z_m: F64, lamps_ego: F64) -> F64:
    """Street lamp light at points of the ego frame, 0..1; lamps_ego: (n, 2)."""
    total = np.zeros_like(x_m)
    for lamp_x, lamp_y in lamps_ego:
        distance2 = (x_m - lamp_x) ** 2 + (y_m - lamp_y) ** 2
        total += np.exp(-distance2 / (0.8 * LAMP_REACH_M) ** 2)
    return np.minimum(total * np.where(z_m > 7.5, 0.15, np.where(z_m > 3.0, 0.4, 0.75)), 0.9)


def brightness(
    points_ego: F64, normals: F64, air: Atmosphere, sun_ego: tuple[float, float, float], lamps_ego: F64
) -> F64:
    """Light on faces, 0..about 1.1.

    Args:
        points_ego: (n, 3) middles of the faces (m). normals: (n, 3), unit length.
        sun_ego: unit vector towards the sun. lamps_ego: (n, 2) street lamps that burn.
    """
    direct = np.maximum(normals @ np.array(sun_ego), 0.0)
    light = air.ambient * (0.62 + 0.12 * normals[:, 2] + 0.42 * direct * air.shares[0])
    if air.lamps > 0.3:
        x, y, z = points_ego[:, 0], points_ego[:, 1], points_ego[:, 2]
        facing = 0.35 + 0.65 * np.maximum(-normals[:, 0], 0.0)
        light = light + air.lamps * (1.25 * beam(x, y, z) * facing + pools(x, y, z, lamps_ego))
    return np.asarray(np.minimum(light, 1.1))


def sun_direction(azimuth_rad: float, elevation_rad: float, heading_rad: float) -> tuple[float, float, float]:
    """Unit vector towards the sun in the ego frame."""
    relative = azimuth_rad - heading_rad
    c = math.cos(elevation_rad)
    return (c * math.cos(relative), c * math.sin(relative), math.sin(elevation_rad))


def air_colour(air: Atmosphere) -> F64:
    """BGR that distance fades into."""
    day, dusk, night = air.shares
    clear = (
        day * np.array([225.0, 205.0, 185.0])
        + dusk * np.array([128.0, 105.0, 112.0])
        + night * np.array([26.0, 20.0, 17.0])
    )
    if air.weather == "clear":
        return np.asarray(clear)
    grey = (
        day * np.array([196.0, 192.0, 188.0])
        + dusk * np.array([98.0, 92.0, 90.0])
        + night * np.array([30.0, 27.0, 25.0])
    )
    return np.asarray(grey)
