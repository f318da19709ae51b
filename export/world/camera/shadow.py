"""Shadows on the ground: the dark beneath things, and what the sun leaves behind them."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.world.camera.lens import SHIFT, Lens, fixed_corners
from export.world.scene import Scene

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]

SCALE = 2
BENEATH, SUNLESS = 120, 150  # of 255
NEAREST_M = 2.4


def cast_shadows(picture: U8, scene: Scene, lens: Lens, sun_ego: tuple[float, float, float]) -> None:
    """Darkens the ground in place, below the horizon."""
    top = min(max(int(lens.horizon_px(scene.pose.pitch_rad)) + 1, 0), picture.shape[0] - 2)
    below = picture[top:]
    mask = np.full((below.shape[0] // SCALE + 1, below.shape[1] // SCALE), 255, np.uint8)
    sunny = scene.air.shares[0] > 0.5 and scene.air.weather == "clear" and scene.place != "tunnel"
    if sunny:
        for x, y, turn, size in _casters(scene):
            _fill(mask, _sun_outline(x, y, turn, size, sun_ego), scene, lens, top, SUNLESS)
    for body in scene.bodies:
        if 0.0 < body.x_m < 70.0:
            length, width, _ = body.size_m
            spread = 0.12 if body.kind == "vehicle" else 0.05
            outline = _rectangle(body.x_m, body.y_m, body.turn_rad, length + spread, width + spread)
            _fill(mask, outline, scene, lens, top, BENEATH)
    mask = np.asarray(cv2.blur(mask, (3, 3)), dtype=np.uint8)
    key = cv2.resize(mask, (below.shape[1], mask.shape[0] * SCALE), interpolation=cv2.INTER_LINEAR)[: below.shape[0]]
    cv2.multiply(below, cv2.merge([key, key, key]), dst=below, scale=1 / 255.0)


def _casters(scene: Scene) -> list[tuple[float, float, float, tuple[float, float, float]]]:
    casters = [(b.x_m, b.y_m, b.turn_rad, b.size_m) for b in scene.bodies if -4.0 < b.x_m < 80.0]
    for fixture in scene.fixtures:
        thing = fixture.thing
        if fixture.x_m > 90.0 or thing.kind not in ("building", "tree", "rail"):
            continue
        size = (
            thing.size_m
            if thing.kind != "tree"
            else (0.45 * thing.size_m[2], 0.45 * thing.size_m[2], 0.8 * thing.size_m[2])
        )
        casters.append((fixture.x_m, fixture.y_m, fixture.turn_rad, size))
    return casters


def _rectangle(x_m: float, y_m: float, turn_rad: float, length_m: float, width_m: float) -> F64:
    c, s = math.cos(turn_rad), math.sin(turn_rad)
    along, across = np.array([1, 1, -1, -1]) * 0.5 * length_m, np.array([1, -1, -1, 1]) * 0.5 * width_m
    return np.stack([x_m + along * c - across * s, y_m + along * s + across * c], axis=1)


def _sun_outline(
    x_m: float, y_m: float, turn_rad: float, size_m: tuple[float, float, float], sun_ego: tuple[float, float, float]
) -> F64:
    """Convex outline of the box's shadow."""
    foot = _rectangle(x_m, y_m, turn_rad, size_m[0], size_m[1])
    reach = -np.array(sun_ego[:2]) / max(sun_ego[2], 0.2) * size_m[2]
    hull = cv2.convexHull(np.concatenate([foot, foot + reach]).astype(np.float32))
    return np.asarray(hull[:, 0], dtype=np.float64)


def _fill(mask: U8, outline: F64, scene: Scene, lens: Lens, top: int, level: int) -> None:
    outline = _in_front(outline)
    if len(outline) < 3:
        return
    points = np.concatenate([outline, np.zeros((len(outline), 1))], axis=1)
    pixels, _ = lens.project(points, scene.pose.pitch_rad, scene.pose.heave_m)
    fixed = fixed_corners(pixels - (0, top), SCALE)
    cv2.fillConvexPoly(mask, fixed, level, cv2.LINE_8, SHIFT)


def _in_front(outline: F64) -> F64:
    """The part of a convex outline ahead of the camera."""
    if outline[:, 0].min() >= NEAREST_M:
        return outline
    kept = []
    for a, b in zip(outline, np.roll(outline, -1, axis=0)):
        if a[0] >= NEAREST_M:
            kept.append(a)
        if (a[0] - NEAREST_M) * (b[0] - NEAREST_M) < 0.0:
            kept.append(a + (b - a) * ((NEAREST_M - a[0]) / (b[0] - a[0])))
    return np.array(kept).reshape(-1, 2)
