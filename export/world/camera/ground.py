"""The ground plane: verge, asphalt and markings as projected strips, section by section."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.grain import Grain
from export.world.camera.ground_light import GroundLight
from export.world.camera.lens import SHIFT, Lens, fixed_corners
from export.world.camera.light import air_colour
from export.world.camera.markings import Edges, bumps, dashes, patches, zebras
from export.world.journey import Journey
from export.world.motion import Pose
from export.world.road import Road, Section
from export.world.seeds import generator
from export.world.town import Look
from export.world.weather import Atmosphere

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Paint = tuple[float, float, float]

SIGHT_M = 190
STATIONS = np.unique(np.round(np.concatenate([np.arange(-2, 14, 2), np.geomspace(14, SIGHT_M, 26)])).astype(np.int64))
NEAREST_M = 2.2  # ground nearer than this is below the picture
WET_TONE = 0.72
TAR, HOLLOW = 0.55, 0.42  # tones of joints and covers, and of holes, on the asphalt
BUMP_SIGHT_M = 70.0
SNOW = np.array([238.0, 236.0, 232.0])
VERGE_OF = {"urban": "paving", "tunnel": "gravel", "highway": "grass", "residential": "grass"}


class Ground:
    """Draws the ground of one journey."""

    def __init__(self, seed: int, look: Look, journey: Journey, snow: float, lens: Lens) -> None:
        rng = generator(seed, "ground")
        self.road: Road = journey.road
        self.lens = lens
        self._grain = Grain(rng, lens, snow)
        self._light = GroundLight(lens)
        self._asphalt = np.array(look.asphalt) * float(rng.uniform(0.9, 1.1))
        verges = {"grass": look.grass, "paving": look.paving, "gravel": (88.0, 102.0, 110.0)}
        self._verges = {name: np.array(colour) * float(rng.uniform(0.88, 1.1)) for name, colour in verges.items()}
        for name, cover in (("grass", 0.9), ("paving", 0.75)):
            self._verges[name] += (SNOW - self._verges[name]) * (cover * snow**0.4 if snow else 0.0)
        self._asphalt += (SNOW - self._asphalt) * (0.12 * snow)
        self._outer, self._inner = (
            _paint(np.array(colour) * (1.0 - look.wear) + self._asphalt * look.wear)
            for colour in (look.marking, look.centre_marking)
        )
        self._kerbs = rng.random() < 0.7
        self._edges = Edges(self.road)
        self.dashes = dashes(self.road)
        self.zebras = zebras(journey)
        self._joints, self._holes = bumps(journey)
        self._patches = patches(rng, self.road)

    def draw(self, picture: U8, pose: Pose, station_m: float, air: Atmosphere, lamps_ego: F64) -> None:
        """Fills everything below the horizon."""
        top = min(max(int(self.lens.horizon_px(pose.pitch_rad)) + 1, 0), picture.shape[0] - 2)
        below = picture[top:]
        at = self.knots(station_m)
        strips = self.strips(at, pose)
        spans = self.spans(at)
        for section, first, last in reversed(spans):
            self._verge(picture, section, pose, station_m, top)
            self._surface(picture, {name: strip[first:last] for name, strip in strips.items()}, section)
        self._patchwork(picture, pose, station_m)
        for section, first, last in reversed(spans):
            if section.place.name != "residential":
                self._lines(picture, {name: strip[first:last] for name, strip in strips.items()})
        self._fill(picture, self.quads(self.dashes, pose, station_m, 95.0), self._outer)
        self._fill(picture, self.quads(self.zebras, pose, station_m, 70.0), self._outer)
        for shapes, tone in ((self._joints, TAR), (self._holes, HOLLOW)):
            self._fill(picture, self.quads(shapes, pose, station_m, BUMP_SIGHT_M), _paint(tone * self._asphalt))
        self._grain.apply(below, top, pose, WET_TONE if air.weather == "rain" else 1.0)
        self._light.apply(below, top, pose.pitch_rad, air, lamps_ego)
        self._apply_air(below, top, pose, air)

    def knots(self, station_m: float) -> NDArray[np.int64]:
        """Knots of the road at which the ground is drawn from a station, near to far."""
        return np.asarray(np.clip(int(station_m) + STATIONS, 0, len(self.road.x_m) - 1))

    def strips(self, at: NDArray[np.int64], pose: Pose) -> dict[str, F64]:
        """Pixels (n, 2) of every line along the road at these knots, by name."""
        lines = self.project(self._edges.x_m[:, at], self._edges.y_m[:, at], pose)
        return {name: lines[i] for i, name in enumerate(self._edges.names)}

    def spans(self, at: NDArray[np.int64]) -> list[tuple[Section, int, int]]:
        """The sections in sight, near to far, each with its range of stations (sharing the one at its end)."""
        spans = []
        for section in self.road.sections:
            inside = np.flatnonzero((at >= section.start_m) & (at < section.end_m))
            if len(inside):
                spans.append((section, int(inside[0]), min(int(inside[-1]) + 2, len(at))))
        return spans

    def _verge(self, picture: U8, section: Section, pose: Pose, station_m: float, top: int) -> None:
        """Fills the rows down from where a section ends; nearer sections then paint over its near part."""
        ends_m = section.end_m - station_m - self.lens.forward_m
        depth = self.lens.ground_depth_m(pose.pitch_rad, pose.heave_m)
        first = top if ends_m > SIGHT_M else max(int(np.argmax(depth < max(ends_m, 1.0))), top)
        picture[first:] = np.clip(self._verges[VERGE_OF[section.place.name]], 0, 255).astype(np.uint8)

    def _surface(self, picture: U8, strip: dict[str, F64], section: Section) -> None:
        asphalt, paving = self._asphalt, np.clip(self._verges["paving"], 0, 255)
        _band(picture, strip["walk_left"], strip["walk_right"], _paint(paving))
        if self._kerbs and section.place.sidewalk_m:
            _band(picture, strip["kerb_left"], strip["kerb_right"], _paint(1.25 * paving))
        _band(picture, strip["edge_left"], strip["edge_right"], _paint(asphalt))
        if section.median_m > 0.5:
            _band(picture, strip["median_left"], strip["median_right"], _paint(self._verges["grass"]))
        for track in ("track_a", "track_b", "track_c", "track_d"):
            _band(picture, strip[track + "1"], strip[track + "2"], _paint(0.91 * asphalt))

    def _lines(self, picture: U8, strip: dict[str, F64]) -> None:
        for line in ("line_right", "line_left", "inner_right", "inner_left"):
            _band(picture, strip[line + "_a"], strip[line + "_b"], self._inner if line[0] == "i" else self._outer)

    def _patchwork(self, picture: U8, pose: Pose, station_m: float) -> None:
        stations, corners, tones = self._patches
        first, last = np.searchsorted(stations, [station_m - 10.0, station_m + 60.0])
        for i in range(int(first), int(last)):
            colour = _paint(self._asphalt * tones[i])
            patch = (stations[i : i + 1], corners[i : i + 1])
            self._fill(picture, self.quads(patch, pose, station_m - 12.0, 80.0), colour)

    def quads(self, quads: tuple[F64, F64], pose: Pose, station_m: float, reach_m: float) -> F64:
        """Pixels (n, k, 2) of the flat shapes within reach; quads: stations (n,) and world corners (n, k, 2)."""
        stations, corners = quads
        first, last = np.searchsorted(stations, [station_m + 1.0, station_m + reach_m])
        if first == last:
            return np.empty((0, 4, 2))
        chosen = corners[first:last]
        x, _ = pose.to_ego(chosen[..., 0], chosen[..., 1])
        chosen = chosen[(x > 2.0).any(axis=1)]
        return self.project(chosen[..., 0], chosen[..., 1], pose)

    def project(self, x_m: F64, y_m: F64, pose: Pose) -> F64:
        """Pixels of world points on the ground; what is too near is drawn as if it were at the picture's foot."""
        x, y = pose.to_ego(x_m, y_m)
        points = np.stack([np.maximum(x, NEAREST_M), y, np.zeros_like(x)], axis=-1)
        return self.lens.project(points, pose.pitch_rad, pose.heave_m)[0]

    def _fill(self, picture: U8, quads: F64, colour: Paint) -> None:
        for quad in fixed_corners(quads):
            cv2.fillConvexPoly(picture, quad, colour, cv2.LINE_AA, SHIFT)

    def _apply_air(self, below: U8, top: int, pose: Pose, air: Atmosphere) -> None:
        depth = self.lens.ground_depth_m(pose.pitch_rad, pose.heave_m)[top : top + below.shape[0]]
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


def _paint(colour: F64) -> Paint:
    blue, green, red = (float(c) for c in np.clip(colour, 0.0, 255.0))
    return blue, green, red


def _band(picture: U8, left: F64, right: F64, colour: Paint) -> None:
    outline = np.concatenate([left, right[::-1]])
    cv2.fillPoly(picture, [fixed_corners(outline)], colour, cv2.LINE_AA, SHIFT)
