"""What lens and sensor add: vignette, rain on the way, drops on the glass, noise that grows in the dark."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.seeds import generator
from export.world.town import Town
from export.world.weather import Atmosphere, Weather

U8 = NDArray[np.uint8]

NOISES = 6
STREAKS = 5


class Film:
    """Finishes pictures; everything random is drawn from the seed and the frame's number."""

    def __init__(self, seed: int, town: Town, width_px: int, height_px: int, weather: Weather) -> None:
        rng = generator(seed, "film")
        self._seed, self._rain, self._snow = seed, weather.rain, weather.snow
        self._sensor, self._fall = town.sensor, town.look.fall
        y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
        r2 = ((x - width_px / 2) ** 2 + (y - height_px / 2) ** 2) / (0.25 * (width_px**2 + height_px**2))
        fall = np.clip(1.0 - town.sensor.vignette * float(rng.uniform(0.8, 1.2)) * r2, 0, 1)
        tint = np.minimum(np.array(town.sensor.tint) * rng.uniform(0.97, 1.03, 3), 1.0)
        self._vignette = cv2.merge([(255 * fall * float(t)).astype(np.uint8) for t in tint])
        size = (height_px + 32, width_px + 32, 3)
        self._noises = [np.clip(rng.normal(128.0, 24.0, size), 0, 255).astype(np.uint8) for _ in range(NOISES)]
        self._gain = town.sensor.noise * float(rng.uniform(0.8, 1.2))
        self._curve = _tone_curve(town.sensor.contrast)
        field = self._streak_field if self._rain else self._flake_field
        wet = self._rain or self._snow
        self._streaks = [field(rng, width_px, height_px) for _ in range(STREAKS)] if wet else []
        self._drops = self._drop_field(rng, width_px, height_px) if self._rain else []

    def finish(self, picture: U8, frame: int, air: Atmosphere, covered: bool) -> None:
        """Adds everything in place; `covered` keeps rain out (tunnels)."""
        rng = generator(self._seed, "film", frame)
        if self._streaks and not covered:
            streaks = self._streaks[int(rng.integers(STREAKS))]
            shift = int(rng.integers(streaks.shape[1]))
            rolled = np.concatenate([streaks[:, shift:], streaks[:, :shift]], axis=1)
            level = self._rain * (0.10 + 0.25 * air.ambient) + (0.25 + 0.65 * air.ambient if self._snow else 0.0)
            cv2.addWeighted(picture, 1.0, rolled, level, 0.0, dst=picture)
        if self._rain:
            self._wet_glass(picture, frame)
        opened = 0.2 if self._snow else 0.6  # the sensor opens up in the dark, less where the ground is white
        exposure = 1.0 + 0.15 * air.shares[1] + opened * air.shares[2]
        cv2.multiply(picture, self._vignette, dst=picture, scale=exposure / 255.0)
        cv2.LUT(picture, self._curve, dst=picture)
        self._saturate(picture)
        noise = self._noises[int(rng.integers(NOISES))]
        y, x = int(rng.integers(32)), int(rng.integers(32))
        part = noise[y : y + picture.shape[0], x : x + picture.shape[1]]
        gain = self._gain * (1.0 + 1.6 * (1.0 - min(air.ambient, 1.0)))
        cv2.addWeighted(picture, 1.0, part, gain, -128.0 * gain, dst=picture)

    def _saturate(self, picture: U8) -> None:
        """Pulls the colours towards grey, or away from it."""
        share = self._sensor.saturation
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        cv2.addWeighted(picture, share, grey, 1.0 - share, 0.0, dst=picture)

    def _wet_glass(self, picture: U8, frame: int) -> None:
        """Drops bend the picture upside down; the wiper takes half of them away in turn."""
        phase = (frame % 26) / 26.0
        for i, (x, y, r, alpha) in enumerate(self._drops):
            if (i / max(len(self._drops), 1)) > phase:
                continue
            patch = picture[y - r : y + r, x - r : x + r]
            bent = cv2.GaussianBlur(patch[::-1, ::-1], (0, 0), 1.2)
            mixed = patch * (1.0 - alpha) + bent * alpha
            picture[y - r : y + r, x - r : x + r] = mixed.astype(np.uint8)

    def _streak_field(self, rng: np.random.Generator, width: int, height: int) -> U8:
        field = np.zeros((height, width, 3), np.uint8)
        slant = {"steady": 0.0, "gusty": 5.0, "squall": 16.0}[self._fall]
        for _ in range(int((420 if self._fall == "squall" else 260) * self._rain)):
            x, y = int(rng.integers(width)), int(rng.integers(-30, height))
            length = int(rng.integers(8, 34))
            lean = (x - width / 2) / width * 10.0 + slant + float(rng.normal(0, 1.5))
            tone = int(rng.integers(90, 255))
            cv2.line(field, (x, y), (x + int(lean * length / 20.0), y + length), (tone, tone, tone), 1, cv2.LINE_AA)
        return field

    def _flake_field(self, rng: np.random.Generator, width: int, height: int) -> U8:
        """Flakes at every distance: many small ones, a few large and blurred; in a squall drawn out sideways."""
        field = np.zeros((height, width, 3), np.uint8)
        slant = {"steady": 0, "gusty": 2, "squall": 9}[self._fall]
        for _ in range(int((900 if self._fall == "squall" else 620) * self._snow)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            size = 1 + int(rng.exponential(0.8))
            tone = int(rng.integers(120, 255)) // (1 + size // 3)
            end = (x + slant * size // 2, y + size)
            cv2.line(field, (x, y), end, (tone, tone, tone), min(size, 5), cv2.LINE_AA)
        return np.asarray(cv2.GaussianBlur(field, (3, 3), 0.7), dtype=np.uint8)

    def _drop_field(
        self, rng: np.random.Generator, width: int, height: int
    ) -> list[tuple[int, int, int, NDArray[np.float64]]]:
        drops = []
        for _ in range(int(16 * self._rain)):
            r = int(rng.integers(3, 9))
            x, y = int(rng.integers(r, width - r)), int(rng.integers(r, height - r))
            v, u = np.mgrid[-r:r, -r:r] + 0.5
            alpha = np.clip(1.25 - np.hypot(u, v) / r, 0.0, 1.0)[..., None] * 0.75
            drops.append((x, y, r, alpha))
        return drops


def _tone_curve(contrast: float) -> U8:
    """A look-up table around mid-grey."""
    tone = np.arange(256.0)
    return np.clip(96.0 + (tone - 96.0) * contrast, 0, 255).astype(np.uint8)


def spoil(picture: U8, seed: int, frame: int) -> U8:
    """What a broken camera delivers while its JPEG still decodes: noise, smear or torn rows."""
    rng = generator(seed, "spoiled", frame)
    kind = int(rng.integers(3))
    if kind == 0:
        return rng.integers(0, 256, picture.shape, dtype=np.uint8)
    if kind == 1:
        row = picture[int(rng.integers(picture.shape[0]))]
        return np.repeat(row[None], picture.shape[0], axis=0)
    torn = picture.copy()
    for y in range(0, picture.shape[0], 16):
        torn[y : y + 16] = np.roll(picture[y : y + 16], int(rng.integers(picture.shape[1])), axis=1)
    return torn // int(math.exp(rng.uniform(0.0, 1.2)))
