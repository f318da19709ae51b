"""Vehicles as models in their own frame: x forward, y left, z up, origin on the ground below the middle."""

from __future__ import annotations

import numpy as np

from export.world.camera.model import Builder, Colour, Model, shade
from export.world.camera.trim import (
    GLASS,
    front_panel,
    front_trim,
    light_bar,
    rear_panel,
    rear_trim,
    side_panel,
    treads,
    wheels,
)
from export.world.town import Livery, Look

Size = tuple[float, float, float]


def vehicle(variant: str, look: int, size_m: Size, style: Look) -> Model:
    """The model of a vehicle; `look` picks paint and shape from what is driven in the town."""
    rng = np.random.Generator(np.random.PCG64(look))
    paint = style.paints[int(rng.integers(len(style.paints)))]
    builder = Builder()
    if variant == "truck":
        _truck(builder, paint, size_m, rng)
    elif variant == "bus":
        _bus(builder, paint, size_m)
    elif variant in ("van", "emergency"):
        _van(builder, style.livery if variant == "emergency" else None, paint, size_m)
    else:
        body = style.bodies[int(rng.integers(len(style.bodies)))]
        if body == "pickup":
            _pickup(builder, paint, size_m)
        else:
            _car(builder, body, paint, size_m, rng)
    return builder.build()


def _car(b: Builder, body: str, paint: Colour, size: Size, rng: np.random.Generator) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    belt = height * float(rng.uniform(0.57, 0.63))
    rear = length * float(rng.uniform(*{"hatch": (0.05, 0.1), "saloon": (0.16, 0.22), "estate": (0.01, 0.04)}[body]))
    front = length * float(rng.uniform(0.25, 0.31))
    axles = (x - 0.85, -x + 0.85)
    treads(b, axles, y, 0.32)
    b.prism((-x, -y, 0.22), (x, y, belt), paint, (0.04, 0.12, 0.05), shade(paint, 1.06))
    wheels(b, axles, y, 0.32)
    cabin = ((-x + rear, -y + 0.06, belt), (x - front, y - 0.06, height))
    lean = ({"hatch": 0.4, "saloon": 0.6, "estate": 0.12}[body], 0.75, 0.2)
    b.prism(*cabin, shade(paint, 0.97), lean)
    _cabin_glass(b, cabin, lean)
    rear_trim(b, x, y, (0.34, belt), paint)
    front_trim(b, x, y, (0.34, belt))


def _cabin_glass(b: Builder, cabin: tuple[Size, Size], lean: Size) -> None:
    (x0, y0, z0), (x1, y1, z1) = cabin
    rear, front, side = lean

    def at(u: float, v: float, w: float) -> tuple[float, float, float]:
        """u along (0 rear, 1 front), v across (0 right, 1 left), w up, on the cabin's hull."""
        left, right = y1 - side * w, y0 + side * w
        back, fore = x0 + rear * w, x1 - front * w
        return (back + (fore - back) * u, right + (left - right) * v, z0 + (z1 - z0) * w)

    b.face([at(0, 0.93, 0.12), at(0, 0.07, 0.12), at(0, 0.10, 0.88), at(0, 0.90, 0.88)], GLASS)
    b.face([at(1, 0.05, 0.06), at(1, 0.95, 0.06), at(1, 0.92, 0.92), at(1, 0.08, 0.92)], GLASS)
    for u0, u1 in ((0.08, 0.48), (0.53, 0.94)):
        b.face([at(u1, 1, 0.12), at(u0, 1, 0.12), at(u0, 1, 0.88), at(u1, 1, 0.88)], GLASS)
        b.face([at(u0, 0, 0.12), at(u1, 0, 0.12), at(u1, 0, 0.88), at(u0, 0, 0.88)], GLASS)


def _pickup(b: Builder, paint: Colour, size: Size) -> None:
    """A cabin in the middle and an open bed behind it."""
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    top, belt = 1.12 * height, 0.66 * height
    axles = (x - 0.9, -x + 0.95)
    treads(b, axles, y, 0.38)
    b.prism((-x, -y, 0.36), (x, y, belt), paint, (0.0, 0.1, 0.04), shade(paint, 0.5))
    wheels(b, axles, y, 0.38)
    cabin = ((-x + 0.42 * length, -y + 0.06, belt), (x - 0.26 * length, y - 0.06, top))
    lean = (0.1, 0.55, 0.16)
    b.prism(*cabin, shade(paint, 0.97), lean)
    _cabin_glass(b, cabin, lean)
    rear_trim(b, x, y, (0.46, belt), paint)
    front_trim(b, x, y, (0.46, belt))


def _van(b: Builder, livery: Livery | None, paint: Colour, size: Size) -> None:
    """A box with a short nose; with a livery painted, striped and with light bars."""
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    if livery:
        paint = livery.paint
        height -= 0.22
    nose = x - 0.95
    axles = (x - 1.0, -x + 1.0)
    treads(b, axles, y, 0.36)
    b.part(-0.5)
    b.prism((-x, -y, 0.28), (nose, y, height), paint, (0.03, 0.5, 0.1), shade(paint, 1.04))
    slope = 0.5 / (height - 0.28)
    front_panel(
        b, nose + 0.01 - slope * 1.0, (-y + 0.16, y - 0.16), (1.28, height - 0.22), GLASS, slope * (height - 1.5)
    )
    rear_panel(b, -x - 0.004, (-y + 0.25, y - 0.25), (1.35, height - 0.3), GLASS, 0.02)
    for side in (1, -1):
        side_panel(b, side, y - 0.03, (nose - 1.45, nose - 0.62), (1.3, min(2.0, height - 0.3)), GLASS, 0.03)
        if livery:
            side_panel(b, side, y + 0.002, (-x + 0.05, nose - 0.1), (0.85, 1.2), livery.stripe, 0.02)
    wheels(b, axles[1:], y, 0.36)
    rear_trim(b, x, y, (0.45, 1.45), paint)
    if livery:
        rear_panel(b, -x - 0.006, (-y + 0.05, y - 0.05), (0.85, 1.2), livery.stripe, 0.02)
        light_bar(b, -x + 0.25, y, height, livery.beacons)
        light_bar(b, nose - 0.8, y, height, livery.beacons)
    b.part(nose + 0.5)
    b.prism((nose - 0.25, -y, 0.28), (x, y, 1.2), paint, (0.0, 0.14, 0.05))
    wheels(b, axles[:1], y, 0.36)
    front_trim(b, x, y, (0.4, 1.15))


def _truck(b: Builder, paint: Colour, size: Size, rng: np.random.Generator) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    load: Colour = tuple(float(c) for c in rng.uniform(90, 240, 3))  # type: ignore[assignment]
    axles = (x - 1.2, -x + 2.6, -x + 1.3)
    b.part(-1.5)
    treads(b, axles[1:], y, 0.5)
    b.prism((-x + 0.1, -y + 0.3, 0.6), (x - 2.2, y - 0.3, 1.0), (50, 50, 52))
    b.prism((-x, -y, 1.0), (x - 2.3, y, height), load, roof=shade(load, 1.1))
    rear_panel(b, -x - 0.004, (-0.02, 0.02), (1.05, height - 0.1), shade(load, 0.6))
    rear_panel(b, -x, (-y + 0.1, y - 0.1), (0.45, 0.6), (60, 60, 200))
    wheels(b, axles[1:], y - 0.02, 0.5)
    rear_trim(b, x, y, (0.5, 1.25), (60, 60, 60))
    b.part(x - 1.0)
    treads(b, axles[:1], y, 0.5)
    top = min(height - 0.3, 3.0)
    b.prism((x - 2.1, -y + 0.05, 0.45), (x, y - 0.05, top), paint, (0.0, 0.2, 0.05))
    front_panel(b, x - 0.06, (-y + 0.22, y - 0.22), (1.55, top - 0.35), GLASS, 0.11)
    for side in (1, -1):
        side_panel(b, side, y - 0.06, (x - 1.3, x - 0.3), (1.6, 2.4), GLASS, 0.02)
    wheels(b, axles[:1], y - 0.04, 0.5)
    front_trim(b, x, y, (0.45, 1.2))


def _bus(b: Builder, paint: Colour, size: Size) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    axles = (x - 2.4, -x + 2.6)
    treads(b, axles, y, 0.48)
    b.prism((-x, -y, 0.32), (x, y, height), paint, (0.05, 0.15, 0.05), shade(paint, 1.1))
    bay = (length - 1.0) / 6.0
    for side in (1, -1):
        for k in range(6):
            first = -x + 0.5 + k * bay
            side_panel(b, side, y - 0.015, (first, first + bay - 0.12), (1.35, height - 0.5), GLASS, 0.03)
    rear_panel(b, -x + 0.012, (-y + 0.25, y - 0.25), (1.6, height - 0.45), GLASS, 0.03)
    front_panel(b, x - 0.03, (-y + 0.12, y - 0.12), (1.05, height - 0.5), GLASS, 0.1)
    front_panel(b, x - 0.12, (-y + 0.4, y - 0.4), (height - 0.42, height - 0.15), (60, 190, 240), 0.02)
    wheels(b, axles, y, 0.48)
    rear_trim(b, x, y, (0.4, 1.3), paint)
    front_trim(b, x, y, (0.4, 1.05))
