"""The sky as a panorama around the drive, one for each light, scrolled by the heading."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.light import air_colour
from export.world.seeds import generator
from export.world.weather import Atmosphere, Weather

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


class Sky:
    """Panoramas of day, dusk and night; columns are azimuths counter-clockwise to the left."""

    def __init__(self, seed: int, weather: Weather, width_px: int, focal_px: float, rows: int) -> None:
        self._rng = generator(seed, "sky")
        self._weather = weather
        self._rows = rows
        self._focal_px = focal_px
        self._columns = round(2 * math.pi * focal_px)
        self._width_px = width_px
        clouds, hills = self._clouds(), self._hills()
        self._panoramas = [self._paint(i, clouds, hills) for i in range(3)]

    def draw(self, picture: U8, air: Atmosphere, heading_rad: float, horizon_px: float) -> None:
        """Fills the picture down to a little below the horizon."""
        bottom = min(max(int(horizon_px) + 1, 1), picture.shape[0])
        rows = min(bottom, self._rows)
        middle = self._columns * ((-heading_rad / (2 * math.pi)) % 1.0)
        first = int(middle - 0.5 * self._width_px) % self._columns
        parts = [(p[self._rows - rows :], w) for p, w in zip(self._panoramas, air.shares) if w > 0.0]
        band = _window(parts[0][0], first, self._width_px)
        if len(parts) > 1:
            other = _window(parts[1][0], first, self._width_px)
            band = np.asarray(cv2.addWeighted(band, parts[0][1], other, parts[1][1], 0.0), dtype=np.uint8)
        picture[bottom - rows : bottom] = band
        picture[: bottom - rows] = picture[bottom - rows]

    def _paint(self, light: int, clouds: F32, hills: U8) -> U8:
        zenith = ((205, 140, 70), (92, 62, 50), (20, 12, 8))[light]
        low = ((238, 215, 190), (120, 140, 205), (34, 26, 22))[light]
        cover = ((246, 244, 240), (120, 105, 125), (30, 27, 25))[light]
        if self._weather.kind != "clear":
            grey = ((198, 194, 190), (98, 92, 90), (30, 27, 25))[light]
            zenith = tuple(int(0.85 * g) for g in grey)  # type: ignore[assignment]
            low, cover = grey, tuple(int(0.95 * g) for g in grey)  # type: ignore[assignment]
        height = np.linspace(1.0, 0.0, self._rows, dtype=np.float32)[:, None, None] ** 0.8
        picture = height * np.array(zenith, np.float32) + (1 - height) * np.array(low, np.float32)
        picture = picture * (1 - clouds[..., None]) + clouds[..., None] * np.array(cover, np.float32)
        if light == 2 and self._weather.kind == "clear":
            stars = self._rng.random((self._rows, self._columns)) > 0.9993
            picture[stars] = 150.0
        if light == 0 and self._weather.kind == "clear":
            self._add_sun(picture)
        shares = tuple(1.0 if i == light else 0.0 for i in range(3))
        air = Atmosphere(self._weather.kind, "", 0.0, 0.0, 0.0, shares)  # type: ignore[arg-type]
        ridge = air_colour(air) * (0.55 if light != 2 else 0.7) + np.array([18.0, 30.0, 12.0]) * (0.6, 0.2, 0.05)[light]
        visible = math.exp(-self._weather.extinction_per_m * 900.0)
        blend = (hills.astype(np.float32) / 255.0)[..., None] * visible
        picture = picture * (1 - blend) + blend * ridge.astype(np.float32)
        haze = np.exp(-np.arange(self._rows)[::-1] / 14.0, dtype=np.float32)[:, None, None] * 0.7
        picture = picture * (1 - haze) + haze * air_colour(air).astype(np.float32)
        if self._weather.kind == "fog":
            picture[:] = air_colour(air)
        return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)

    def _add_sun(self, picture: F32) -> None:
        column = self._columns * ((-self._weather.sun_azimuth_rad / (2 * math.pi)) % 1.0)
        row = self._rows - self._weather.sun_elevation_rad * self._focal_px
        y, x = np.mgrid[0 : self._rows, 0 : self._columns].astype(np.float32)
        across = np.abs(x - column)
        across = np.minimum(across, self._columns - across)
        distance2 = across**2 + (y - row) ** 2
        glow = 0.75 * np.exp(-distance2 / 9000.0) + 0.9 * np.exp(-distance2 / 500.0)
        picture += (255.0 - picture) * np.clip(glow, 0.0, 1.0)[..., None]

    def _clouds(self) -> F32:
        total = np.zeros((self._rows, self._columns), np.float32)
        for octave, weight in ((6, 1.0), (14, 0.6), (34, 0.35), (80, 0.18)):
            grid = self._rng.random((max(octave // 2, 2), octave)).astype(np.float32)
            grid = np.concatenate([grid, grid[:, :1]], axis=1)
            total += weight * cv2.resize(grid, (self._columns, self._rows), interpolation=cv2.INTER_CUBIC)
        total = (total - total.mean()) / total.std()
        threshold = 1.2 - 2.2 * self._weather.cloudiness
        return np.asarray(np.clip((total - threshold) * 0.7, 0.0, 0.85), dtype=np.float32)

    def _hills(self) -> U8:
        heights = np.zeros(self._columns)
        for octave, weight in ((5, 14.0), (13, 8.0), (41, 4.0), (160, 1.5)):
            knots = self._rng.random(octave)
            heights += weight * np.interp(
                np.arange(self._columns) * octave / self._columns, np.arange(octave + 1), np.append(knots, knots[0])
            )
        rows = np.arange(self._rows)[::-1, None]
        return np.where(rows < heights[None, :], 255, 0).astype(np.uint8)


def _window(panorama: U8, first: int, width: int) -> U8:
    if first + width <= panorama.shape[1]:
        return panorama[:, first : first + width]
    return np.concatenate([panorama[:, first:], panorama[:, : first + width - panorama.shape[1]]], axis=1)
