"""The LiDAR: rays cast into the scene as an analytic ground plane and upright boxes, or what the camera draws.

The whole sweep is taken at its middle instant; a real one turns while the vehicle moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.world.facets import Fan
from export.world.scene import Scene
from export.world.seeds import generator

if TYPE_CHECKING:
    from export.world.camera.painter import Placed

F64 = NDArray[np.float64]

RINGS, AZIMUTHS = 32, 360
LOWEST_RAD, HIGHEST_RAD = math.radians(-24.0), math.radians(7.0)
FORWARD_M, UP_M = 0.2, 1.85
RANGE_M = 120.0
NOISE_M = 0.015

REFLECTANCE = {
    "vehicle": 0.55, "pedestrian": 0.35, "building": 0.4, "wall": 0.45, "rail": 0.7, "tree": 0.25, "lamp": 0.5,
    "post": 0.8, "sign": 0.95, "portal": 0.4,
}  # fmt: skip


class Lidar:
    """Casts sweeps into scenes.

    Args:
        columns: azimuths of a whole circle.
        rings: elevations.
        drawn: what the camera draws of a scene, all round: it is cast then, face by face. Without it everything is
            boxes, which are cheaper and stand a little beside what is drawn.
        half_rad: sweeps reach so far to either side; those of real spinning heads all round.
    """

    def __init__(
        self, seed: int, columns: int = AZIMUTHS, rings: int = RINGS,
        drawn: Callable[[Scene], list[Placed]] | None = None, half_rad: float = math.pi,
    ) -> None:  # fmt: skip
        self._seed, self._columns, self._drawn = seed, columns, drawn
        elevation = np.linspace(LOWEST_RAD, HIGHEST_RAD, rings)
        azimuth = -math.pi + (np.arange(columns) + 0.5) * 2 * math.pi / columns
        self._ahead = np.flatnonzero(np.abs(azimuth) < half_rad)
        azimuth = azimuth[self._ahead]
        self._fan = Fan(azimuth, elevation)
        self._directions = np.stack(
            [
                np.cos(elevation)[:, None] * np.cos(azimuth)[None, :],
                np.cos(elevation)[:, None] * np.sin(azimuth)[None, :],
                np.broadcast_to(np.sin(elevation)[:, None], (rings, len(azimuth))),
            ],
            axis=-1,
        )

    def sweep(self, scene: Scene, number: int) -> NDArray[np.float32]:
        """(points, 4) float32 x, y, z in the LiDAR frame (m) and intensity 0..1."""
        pitch = scene.pose.pitch_rad
        c, s = math.cos(pitch), math.sin(pitch)
        own = self._directions
        level = np.stack([own[..., 0] * c + own[..., 2] * s, own[..., 1], own[..., 2] * c - own[..., 0] * s], axis=-1)
        distance, shine = self._ground(level, scene)
        if self._drawn is not None:
            self._meet(distance, shine, self._drawn(scene), scene)
        for box in _boxes(scene, self._drawn is not None):
            self._hit(level, distance, shine, UP_M + scene.pose.heave_m, *box)
        rng = generator(self._seed, "lidar", number)
        measured = distance + rng.normal(0.0, NOISE_M, distance.shape)
        kept = distance < RANGE_M
        air = np.exp(-2.0 * scene.air.extinction_per_m * np.minimum(distance, RANGE_M))
        signal = shine * air
        kept &= signal * np.minimum(1.0, (60.0 / np.maximum(distance, 1.0)) ** 2) > 0.015 * (
            1 + rng.random(distance.shape)
        )
        points = np.empty((int(kept.sum()), 4), np.float32)
        points[:, :3] = own[kept] * measured[kept][:, None]
        points[:, 3] = np.clip(signal[kept] + rng.normal(0.0, 0.02, len(points)), 0.0, 1.0)
        return points

    def _ground(self, level: F64, scene: Scene) -> tuple[F64, F64]:
        down = -level[..., 2]
        with np.errstate(divide="ignore"):
            distance = np.where(down > 1e-3, (UP_M + scene.pose.heave_m) / np.maximum(down, 1e-3), np.inf)
        wet = {"rain": 0.4, "snow": 2.2}.get(scene.air.weather, 1.0)
        shine = np.full(distance.shape, 0.18 * wet) * np.clip(down * 4.0, 0.05, 1.0) ** 0.5
        return distance, shine

    def _meet(self, distance: F64, shine: F64, drawn: list[Placed], scene: Scene) -> None:
        """Shortens the rays that meet what is drawn."""
        kinds = {body.id: body.kind for body in scene.bodies}
        kinds |= {-fixture.thing.id: fixture.thing.kind for fixture in scene.fixtures}
        drawn = [p for p in drawn if p.id in kinds]
        reflectance = np.array([REFLECTANCE[kinds[p.id]] for p in drawn])
        at_ego = FORWARD_M, 0.0, UP_M + scene.pose.heave_m
        met_m, owner = self._fan.hits(drawn, at_ego, scene.pose.pitch_rad, RANGE_M)
        nearer = met_m < distance
        distance[nearer], shine[nearer] = met_m[nearer], reflectance[owner[nearer]]

    def _hit(
        self, level: F64, distance: F64, shine: F64, up_m: float, x_m: float, y_m: float, turn_rad: float,
        size_m: tuple[float, float, float], base_m: float, reflectance: float,
    ) -> None:  # fmt: skip
        """Shortens the rays that meet one upright box (slab test in the box's own axes)."""
        ox, oy = FORWARD_M - x_m, -y_m
        reach = 0.5 * math.hypot(size_m[0], size_m[1])
        away = math.hypot(ox, oy)
        columns: slice | NDArray[np.int64] = slice(None)
        if away > reach + 0.5:
            middle = math.atan2(-oy, -ox)
            half = math.asin(min(reach / away, 1.0))
            first = math.floor((middle - half + math.pi) / (2 * math.pi) * self._columns)
            last = math.ceil((middle + half + math.pi) / (2 * math.pi) * self._columns)
            columns = np.arange(first, last + 1) % self._columns
            if len(self._ahead) < self._columns:
                columns = np.flatnonzero(np.isin(self._ahead, columns))
        c, s = math.cos(turn_rad), math.sin(turn_rad)
        rays = level[:, columns]
        dx, dy = rays[..., 0] * c + rays[..., 1] * s, rays[..., 1] * c - rays[..., 0] * s
        px, py = ox * c + oy * s, oy * c - ox * s
        near, far = np.zeros(dx.shape), np.full(dx.shape, np.inf)
        for direction, origin, low, high in (
            (dx, px, -0.5 * size_m[0], 0.5 * size_m[0]),
            (dy, py, -0.5 * size_m[1], 0.5 * size_m[1]),
            (rays[..., 2], up_m, base_m, base_m + size_m[2]),
        ):
            safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
            a, b = (low - origin) / safe, (high - origin) / safe
            near, far = np.maximum(near, np.minimum(a, b)), np.minimum(far, np.maximum(a, b))
        hit = (near < far) & (near > 0.3) & (near < distance[:, columns])
        distance[:, columns] = np.where(hit, near, distance[:, columns])
        shine[:, columns] = np.where(hit, reflectance, shine[:, columns])


def _boxes(
    scene: Scene, only_plates: bool
) -> list[tuple[float, float, float, tuple[float, float, float], float, float]]:
    """Everything, or the plates of signs alone, as (x, y, turn, size, base height, reflectance)."""
    boxes = []
    for body in () if only_plates else scene.bodies:
        if math.hypot(body.x_m, body.y_m) > RANGE_M:
            continue
        if body.kind == "vehicle" and body.variant == "car":
            length, width, height = body.size_m
            boxes.append((body.x_m, body.y_m, body.turn_rad, (length, width, 0.6 * height - 0.22), 0.22, 0.55))
            c, s = math.cos(body.turn_rad), math.sin(body.turn_rad)
            back = -0.06 * length
            cabin = (0.46 * length, 0.84 * width, 0.4 * height)
            boxes.append((body.x_m + back * c, body.y_m + back * s, body.turn_rad, cabin, 0.6 * height, 0.5))
        else:
            base = 0.3 if body.kind == "vehicle" else 0.0
            size = (body.size_m[0], body.size_m[1], body.size_m[2] - base)
            boxes.append((body.x_m, body.y_m, body.turn_rad, size, base, REFLECTANCE[body.kind]))
    for fixture in scene.fixtures:
        thing = fixture.thing
        if only_plates and thing.kind != "sign":
            continue
        if thing.kind == "parked" or math.hypot(fixture.x_m, fixture.y_m) - thing.size_m[0] > RANGE_M:
            continue
        size, base = thing.size_m, 0.0
        if thing.kind == "tree":
            size, base = (
                (0.5 * thing.size_m[2] * 0.7, 0.5 * thing.size_m[2] * 0.7, 0.6 * thing.size_m[2]),
                0.38 * thing.size_m[2],
            )
        elif thing.kind == "portal":
            size, base = (thing.size_m[0], thing.size_m[1] + 28.0, thing.size_m[2] - 5.35), 5.35
        elif thing.kind == "sign":
            size, base = (0.06, min(thing.size_m[1], 2.6), 0.75), thing.size_m[2] - 0.75
        elif thing.kind == "rail":
            size, base = (thing.size_m[0], thing.size_m[1], 0.34), thing.size_m[2] - 0.34
        boxes.append((fixture.x_m, fixture.y_m, fixture.turn_rad, size, base, REFLECTANCE[thing.kind]))
    return boxes
