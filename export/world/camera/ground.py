"""The ground plane: verge, asphalt, markings and crossings as projected strips, with a world-fixed grain."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.camera.ground_light import GroundLight
from export.world.camera.light import air_colour
from export.world.camera.markings import Edges, dashes, patches, zebras
from export.world.journey import Journey
from export.world.motion import Pose
from export.world.road import Road
from export.world.seeds import generator
from export.world.weather import Atmosphere

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

SIGHT_M = 190
STATIONS = np.unique(np.round(np.concatenate([np.arange(-2, 14, 2), np.geomspace(14, SIGHT_M, 26)])).astype(np.int64))
GRAIN_PX = 512
GRAIN_M = 0.045  # one texel
SHIFT = 4  # fractional bits of polygon corners


class Ground:
    """Draws the ground of one journey."""

    def __init__(self, seed: int, journey: Journey, lens: Lens) -> None:
        rng = generator(seed, "ground")
        self.road: Road = journey.road
        self.lens = lens
        self._grain = _grain(rng)
        tone = float(rng.uniform(62, 112))
        self._asphalt = np.array([tone * 1.02, tone, tone * 0.98]) + rng.uniform(-4, 4, 3)
        self._verges = {
            "grass": np.array([48.0, 112.0, 92.0]) * rng.uniform(0.75, 1.2) + rng.uniform(-14, 14, 3),
            "paving": np.array([128.0, 134.0, 138.0]) * rng.uniform(0.8, 1.1),
            "gravel": np.array([88.0, 102.0, 110.0]) * rng.uniform(0.8, 1.1),
        }
        self._yellow = rng.random() < 0.3
        self._edges = Edges(self.road)
        self._dashes = dashes(self.road)
        self._zebras = zebras(journey)
        self._patches = patches(rng, self.road)
        self._light = GroundLight(lens)
        self._curb = rng.random() < 0.7

    def draw(self, picture: U8, pose: Pose, station_m: float, air: Atmosphere, lamps_ego: F64) -> None:
        """Fills everything below the horizon."""
        top = min(max(int(self.lens.horizon_px(pose.pitch_rad)) + 1, 0), picture.shape[0] - 2)
        self._strips(picture, pose, station_m)
        below = picture[top:]
        wet = 0.72 if air.weather == "rain" else 1.0
        self._apply_grain(below, top, pose, wet)
        self._light.apply(below, top, pose.pitch_rad, air, lamps_ego)
        self._apply_air(below, top, pose, air)

    def _strips(self, picture: U8, pose: Pose, station_m: float) -> None:
        section = self.road.section(station_m + 20.0)
        verge = self._verges[
            "paving" if section.place.name == "urban" else "gravel" if section.place.name == "tunnel" else "grass"
        ]
        top = min(max(int(self.lens.horizon_px(pose.pitch_rad)) + 1, 0), picture.shape[0] - 2)
        picture[top:] = np.clip(verge, 0, 255).astype(np.uint8)
        at = np.clip(int(station_m) + STATIONS, 0, len(self.road.x_m) - 1)
        lines = self._project(self._edges.x_m[:, at], self._edges.y_m[:, at], pose)
        names = self._edges.names
        strip = {name: lines[i] for i, name in enumerate(names)}
        paving = tuple(float(c) for c in np.clip(self._verges["paving"], 0, 255))
        asphalt = tuple(float(c) for c in self._asphalt)
        kerb = tuple(float(c) for c in np.clip(self._verges["paving"] * 1.25, 0, 255))
        _band(picture, strip["walk_left"], strip["walk_right"], paving)
        if self._curb and section.place.sidewalk_m:
            _band(picture, strip["kerb_left"], strip["kerb_right"], kerb)
        _band(picture, strip["edge_left"], strip["edge_right"], asphalt)
        if section.median_m > 0.5:
            grass = tuple(float(c) for c in self._verges["grass"])
            _band(picture, strip["median_left"], strip["median_right"], grass)
        for name in ("track_a", "track_b", "track_c", "track_d"):
            _band(picture, strip[name + "1"], strip[name + "2"], tuple(0.91 * c for c in asphalt))
        self._patchwork(picture, pose, station_m)
        self._marks(picture, pose, station_m, strip, section.place.name)

    def _marks(self, picture: U8, pose: Pose, station_m: float, strip: dict[str, F64], place: str) -> None:
        white = (222.0, 226.0, 226.0)
        yellow = (70.0, 185.0, 225.0) if self._yellow else white
        if place != "residential":
            for name in ("line_right", "line_left"):
                _band(picture, strip[name + "_a"], strip[name + "_b"], white)
            if place == "highway":
                for name in ("inner_right", "inner_left"):
                    _band(picture, strip[name + "_a"], strip[name + "_b"], yellow)
            else:
                _band(picture, strip["centre_a"], strip["centre_b"], yellow)
        self._quads(picture, pose, station_m, self._dashes, white, 95.0)
        self._quads(picture, pose, station_m, self._zebras, white, 70.0)

    def _patchwork(self, picture: U8, pose: Pose, station_m: float) -> None:
        stations, corners, tones = self._patches
        first, last = np.searchsorted(stations, [station_m - 10.0, station_m + 60.0])
        for i in range(int(first), int(last)):
            colour = tuple(float(c) for c in self._asphalt * tones[i])
            self._quads(picture, pose, station_m - 12.0, (stations[i : i + 1], corners[i : i + 1]), colour, 80.0)

    def _quads(
        self,
        picture: U8,
        pose: Pose,
        station_m: float,
        quads: tuple[F64, F64],
        colour: tuple[float, ...],
        reach_m: float,
    ) -> None:
        stations, corners = quads
        first, last = np.searchsorted(stations, [station_m + 1.0, station_m + reach_m])
        if first == last:
            return
        chosen = corners[first:last]
        points = self._project(chosen[..., 0], chosen[..., 1], pose)
        x, _ = pose.to_ego(chosen[..., 0], chosen[..., 1])
        points = points[(x > 2.0).any(axis=1)]
        fixed = np.round(np.clip(points, -3000, 4000) * (1 << SHIFT)).astype(np.int32)
        for quad in fixed:
            cv2.fillConvexPoly(picture, quad, colour, cv2.LINE_AA, SHIFT)

    def _project(self, x_m: F64, y_m: F64, pose: Pose) -> F64:
        x, y = pose.to_ego(x_m, y_m)
        points = np.stack([np.maximum(x, 2.2), y, np.zeros_like(x)], axis=-1)
        return self.lens.project(points, pose.pitch_rad)[0]

    def _apply_grain(self, below: U8, top: int, pose: Pose, wet: float) -> None:
        """Multiplies a world-fixed texture in; it fades with distance, where it would only flicker."""
        lens, rows = self.lens, below.shape[0]
        width = below.shape[1]
        pixels = np.array([[0, rows - 1], [width - 1, rows - 1], [0, 12], [width - 1, 12]], np.float64)
        depth = lens.ground_depth_m(pose.pitch_rad)
        angle = lens.down_rad + pose.pitch_rad
        corners = []
        for u, v in pixels:
            ahead = depth[min(top + int(v), lens.height_px - 1)]
            along = ahead * math.cos(angle) + lens.up_m * math.sin(angle)
            left = -(u - 0.5 * lens.width_px) / lens.focal_px * along
            corners.append((ahead + lens.forward_m, left))
        ground = np.array(corners)
        c, s = math.cos(pose.heading_rad), math.sin(pose.heading_rad)
        wx = pose.x_m % (GRAIN_PX * GRAIN_M) + ground[:, 0] * c - ground[:, 1] * s
        wy = pose.y_m % (GRAIN_PX * GRAIN_M) + ground[:, 0] * s + ground[:, 1] * c
        texels = np.stack([wx, wy], axis=1) / GRAIN_M
        matrix = cv2.getPerspectiveTransform(pixels.astype(np.float32), texels.astype(np.float32))
        grain = cv2.warpPerspective(
            self._grain,
            matrix,
            (width, rows),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP,
        )
        distance = depth[top : top + rows]
        weight = np.clip(1.25 - distance / 34.0, 0.0, 1.0)
        weight[:13] = 0.0
        key = np.repeat((weight * 255).astype(np.uint8)[:, None], width, axis=1)
        grain = cv2.addWeighted(cv2.multiply(grain, key, scale=1 / 255.0), 1.0, cv2.bitwise_not(key), 128 / 255.0, 0.0)
        cv2.multiply(below, cv2.merge([grain, grain, grain]), dst=below, scale=wet / 128.0)

    def _apply_air(self, below: U8, top: int, pose: Pose, air: Atmosphere) -> None:
        depth = self.lens.ground_depth_m(pose.pitch_rad)[top : top + below.shape[0]]
        kept = np.exp(-air.extinction_per_m * np.minimum(depth, 5000.0))
        if air.weather == "rain":  # water throws the sky back at flat angles
            kept = kept * (1.0 - 0.3 * np.clip(depth / 45.0, 0.0, 1.0))
        if kept.min() > 0.995:
            return
        rows = below.shape[0]
        key = np.broadcast_to((kept * 255).astype(np.uint8)[:, None, None], (rows, below.shape[1], 3))
        cv2.multiply(below, np.ascontiguousarray(key), dst=below, scale=1 / 255.0)
        fade = np.clip((1.0 - kept)[:, None] * air_colour(air)[None, :], 0, 255).astype(np.uint8)
        cv2.add(below, np.ascontiguousarray(np.broadcast_to(fade[:, None, :], below.shape)), dst=below)


def _band(picture: U8, left: F64, right: F64, colour: tuple[float, ...]) -> None:
    outline = np.concatenate([left, right[::-1]])
    fixed = np.round(np.clip(outline, -3000, 4000) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(picture, [fixed], colour, cv2.LINE_AA, SHIFT)


def _grain(rng: np.random.Generator) -> U8:
    """A wrapping texture around 128: fine chips, patches, a few cracks."""
    total = rng.normal(0.0, 12.0, (GRAIN_PX, GRAIN_PX)).astype(np.float32)
    for cells, weight in ((8, 6.0), (32, 4.0), (128, 7.0)):
        grid = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        tiled = cv2.resize(np.tile(grid, (3, 3)), (3 * GRAIN_PX, 3 * GRAIN_PX), interpolation=cv2.INTER_CUBIC)
        total += weight * tiled[GRAIN_PX : 2 * GRAIN_PX, GRAIN_PX : 2 * GRAIN_PX]
    return np.asarray(np.clip(total + 128.0, 60, 200), dtype=np.uint8)
