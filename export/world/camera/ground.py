"""The ground plane: verge, asphalt, markings and crossings as projected strips, with a world-fixed grain."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import Lens
from export.world.camera.light import air_colour, beam
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
MARK_M = 0.14


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
        self._edges = _Edges(self.road)
        self._dashes = _dashes(self.road)
        self._zebras = _zebras(journey)
        self._beam = self._beam_map()
        self._curb = rng.random() < 0.7

    def draw(self, picture: U8, pose: Pose, station_m: float, air: Atmosphere, lamps_ego: F64) -> None:
        """Fills everything below the horizon."""
        top = min(max(int(self.lens.horizon_px(pose.pitch_rad)) + 1, 0), picture.shape[0] - 2)
        self._strips(picture, pose, station_m)
        below = picture[top:]
        wet = 0.72 if air.weather == "rain" else 1.0
        self._apply_grain(below, top, pose, wet)
        self._apply_light(below, top, pose, air, lamps_ego)
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
        points = points[(x > 2.0).all(axis=1)]
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

    def _apply_light(self, below: U8, top: int, pose: Pose, air: Atmosphere, lamps_ego: F64) -> None:
        rows = below.shape[0]
        base = air.ambient * (0.74 + 0.3 * air.shares[0])
        if air.lamps <= 0.3:
            if base < 0.99:
                cv2.convertScaleAbs(below, below, min(base, 1.0))
            return
        light = np.full((rows // 4 + 1, below.shape[1] // 4), 255.0 * base, np.float32)
        source = self._beam[-light.shape[0] :] if self._beam.shape[0] >= light.shape[0] else None
        if source is not None:
            light += source * (235.0 * air.lamps)
        for lamp_x, lamp_y in lamps_ego:
            self._pool(light, top, pose, lamp_x, lamp_y, 120.0 * air.lamps)
        full = cv2.resize(np.minimum(light, 255.0), (below.shape[1], rows), interpolation=cv2.INTER_LINEAR)
        key = full.astype(np.uint8)
        cv2.multiply(below, cv2.merge([key, key, key]), dst=below, scale=1 / 255.0)

    def _pool(self, light: NDArray[np.float32], top: int, pose: Pose, x_m: float, y_m: float, level: float) -> None:
        angles = np.arange(16) * (math.pi / 8)
        for radius, share in ((11.0, 0.22), (8.0, 0.28), (5.0, 0.3), (2.6, 0.2)):
            ring = np.stack(
                [np.maximum(x_m + radius * np.cos(angles), 2.2), y_m + radius * np.sin(angles), np.zeros(16)], axis=-1
            )
            points, _ = self.lens.project(ring, pose.pitch_rad)
            points = (points - (0, top)) / 4.0
            mask = np.zeros(light.shape, np.uint8)
            cv2.fillConvexPoly(mask, np.round(np.clip(points, -900, 1200)).astype(np.int32), 1)
            cv2.add(light, level * share, dst=light, mask=mask)

    def _apply_air(self, below: U8, top: int, pose: Pose, air: Atmosphere) -> None:
        depth = self.lens.ground_depth_m(pose.pitch_rad)[top : top + below.shape[0]]
        kept = np.exp(-air.extinction_per_m * np.minimum(depth, 5000.0))
        if kept.min() > 0.995:
            return
        rows = below.shape[0]
        key = np.broadcast_to((kept * 255).astype(np.uint8)[:, None, None], (rows, below.shape[1], 3))
        cv2.multiply(below, np.ascontiguousarray(key), dst=below, scale=1 / 255.0)
        fade = np.clip((1.0 - kept)[:, None] * air_colour(air)[None, :], 0, 255).astype(np.uint8)
        cv2.add(below, np.ascontiguousarray(np.broadcast_to(fade[:, None, :], below.shape)), dst=below)

    def _beam_map(self) -> NDArray[np.float32]:
        """Low beam on the ground at a quarter of the picture's size, from the horizon down."""
        lens = self.lens
        rows = np.arange(lens.height_px // 4 - 1, -1, -1)[::-1] * 4 + 2.0
        depth = lens.ground_depth_m(0.0)[np.minimum(rows.astype(np.int64), lens.height_px - 1)]
        seen = np.isfinite(depth) & (depth < 300.0)
        depth = np.where(seen, depth, 300.0)
        columns = np.arange(lens.width_px // 4) * 4 + 2.0
        left = -(columns[None, :] - 0.5 * lens.width_px) / lens.focal_px * depth[:, None]
        x = np.broadcast_to(depth[:, None] + lens.forward_m, left.shape)
        return (beam(x, left, np.zeros_like(left)) * seen[:, None]).astype(np.float32)


class _Edges:
    """World positions of every line along the road, one column a metre."""

    def __init__(self, road: Road) -> None:
        edge = road.half_median_m + road.lanes * road.lane_width_m
        paved = edge + road.shoulder_m
        walk = paved + road.sidewalk_m
        half = 0.5 * MARK_M
        offsets = {
            "walk_left": walk, "walk_right": -walk, "kerb_left": paved + 0.18, "kerb_right": -paved - 0.18,
            "edge_left": paved, "edge_right": -paved,
            "median_left": road.half_median_m - 0.5, "median_right": -road.half_median_m + 0.5,
            "line_right_a": -edge + half, "line_right_b": -edge - half, "line_left_a": edge + half, "line_left_b": edge - half,
            "inner_right_a": -road.half_median_m + half, "inner_right_b": -road.half_median_m - half,
            "inner_left_a": road.half_median_m + half, "inner_left_b": road.half_median_m - half,
            "centre_a": np.full_like(edge, half), "centre_b": np.full_like(edge, -half),
        }  # fmt: skip
        self.names = tuple(offsets)
        d = np.stack(list(offsets.values()))
        self.x_m = road.x_m[None, :] - d * np.sin(road.heading_rad)[None, :]
        self.y_m = road.y_m[None, :] + d * np.cos(road.heading_rad)[None, :]


def _band(picture: U8, left: F64, right: F64, colour: tuple[float, ...]) -> None:
    outline = np.concatenate([left, right[::-1]])
    fixed = np.round(np.clip(outline, -3000, 4000) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(picture, [fixed], colour, cv2.LINE_AA, SHIFT)


def _dashes(road: Road) -> tuple[F64, F64]:
    """Stations (n,) and world corners (n, 4, 2) of the dashes between lanes of one direction."""
    stations, corners = [], []
    s = 0.0
    while s < road.length_m - 12.0:
        section = road.section(s)
        long, gap = (4.0, 8.0) if section.place.name in ("highway", "tunnel") else (3.0, 4.5)
        for boundary in range(1, section.lanes):
            if road.at(road.lanes, s) < boundary + 0.9:
                continue
            for side in (1, -1):
                ends = np.array([s, s, s + long, s + long])
                middle = road.at(road.half_median_m, s) + boundary * road.at(road.lane_width_m, s)
                d = side * middle + np.array([0.5, -0.5, -0.5, 0.5]) * MARK_M
                x, y, _ = road.position(ends, d)
                stations.append(s)
                corners.append(np.stack([x, y], axis=1))
        s += long + gap
    return np.array(stations), np.array(corners).reshape(-1, 4, 2)


def _zebras(journey: Journey) -> tuple[F64, F64]:
    road = journey.road
    stations, corners = [], []
    for s in journey.crossings_m:
        edge = road.edge_m(s) - 0.3
        for d in np.arange(-edge + 0.2, edge - 0.3, 1.0):
            x, y, _ = road.position(np.array([s - 1.8, s - 1.8, s + 1.8, s + 1.8]), np.array([d + 0.5, d, d, d + 0.5]))
            stations.append(s)
            corners.append(np.stack([x, y], axis=1))
    for s in journey.halts_m:
        low, high = -road.edge_m(s) + 0.1, -0.1
        x, y, _ = road.position(np.array([s - 0.3, s - 0.3, s + 0.1, s + 0.1]), np.array([high, low, low, high]))
        stations.append(s)
        corners.append(np.stack([x, y], axis=1))
    order = np.argsort(np.array(stations), kind="stable") if stations else np.array([], dtype=np.int64)
    return np.array(stations)[order], np.array(corners).reshape(-1, 4, 2)[order]


def _grain(rng: np.random.Generator) -> U8:
    """A wrapping texture around 128: fine chips, patches, a few cracks."""
    total = rng.normal(0.0, 10.0, (GRAIN_PX, GRAIN_PX)).astype(np.float32)
    for cells, weight in ((8, 9.0), (32, 7.0), (128, 8.0)):
        grid = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        tiled = cv2.resize(np.tile(grid, (3, 3)), (3 * GRAIN_PX, 3 * GRAIN_PX), interpolation=cv2.INTER_CUBIC)
        total += weight * tiled[GRAIN_PX : 2 * GRAIN_PX, GRAIN_PX : 2 * GRAIN_PX]
    return np.asarray(np.clip(total + 128.0, 60, 200), dtype=np.uint8)
