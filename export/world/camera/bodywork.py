"""Vehicles as models in their own frame: x forward, y left, z up, origin on the ground below the middle."""

from __future__ import annotations

import numpy as np

from export.world.camera.model import Builder, Colour, Lamp, Model, shade

PAINTS: tuple[Colour, ...] = (
    (235, 235, 235), (40, 38, 36), (150, 148, 145), (95, 92, 90), (120, 60, 25), (30, 30, 165), (70, 40, 20),
    (45, 95, 45), (60, 130, 190), (170, 190, 205), (25, 70, 120), (105, 75, 60),
)  # fmt: skip
GLASS: Colour = (72, 60, 50)
RUBBER: Colour = (28, 28, 28)
RED, WHITE, AMBER, BLUE = (40.0, 30.0, 255.0), (225.0, 245.0, 255.0), (40.0, 150.0, 255.0), (255.0, 90.0, 30.0)


def vehicle(variant: str, look: int, size_m: tuple[float, float, float]) -> Model:
    """The model of a vehicle; `look` picks paint and shape."""
    rng = np.random.Generator(np.random.PCG64(look))
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    builder = Builder()
    if variant in ("truck", "bus"):
        _heavy(builder, variant, paint, size_m, rng)
    elif variant in ("van", "emergency"):
        _van(builder, variant, paint, size_m, rng)
    else:
        _car(builder, paint, size_m, rng)
    return builder.build()


def _car(b: Builder, paint: Colour, size: tuple[float, float, float], rng: np.random.Generator) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    belt = height * float(rng.uniform(0.56, 0.62))
    hatch = rng.random() < 0.55
    rear = float(rng.uniform(0.02, 0.12)) * length if hatch else float(rng.uniform(0.16, 0.22)) * length
    front = float(rng.uniform(0.25, 0.31)) * length
    _wheels(b, x - 0.82, y, 0.32)
    b.prism((-x, -y, 0.24), (x, y, belt), paint, (0.04, 0.10, 0.05), shade(paint, 1.08))
    cabin = ((-x + rear, -y + 0.06, belt), (x - front, y - 0.06, height))
    lean_rear, lean_front, lean_side = (0.35 if hatch else 0.55), 0.70, 0.17
    b.prism(*cabin, shade(paint, 0.97), (lean_rear, lean_front, lean_side))
    _cabin_glass(b, cabin, (lean_rear, lean_front, lean_side))
    _rear_details(b, x, y, belt, paint, 0.30)
    _front_details(b, x, y, belt, 0.32)


def _cabin_glass(b: Builder, cabin: tuple[tuple[float, float, float], tuple[float, float, float]],
                 lean: tuple[float, float, float]) -> None:  # fmt: skip
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


def _van(b: Builder, variant: str, paint: Colour, size: tuple[float, float, float], rng: np.random.Generator) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    emergency = variant == "emergency"
    if emergency:
        paint = (240, 240, 240) if rng.random() < 0.6 else (40, 40, 200)
        height -= 0.22
    _wheels(b, x - 1.0, y, 0.36)
    nose = 0.95
    b.prism((x - nose - 0.3, -y, 0.3), (x, y, 1.25), paint, (0.0, 0.12, 0.05))
    b.prism((-x, -y, 0.3), (x - nose, y, height), paint, (0.03, 0.55, 0.08), shade(paint, 1.05))
    b.face([(x - nose + 0.0, -y + 0.12, 1.3), (x - nose + 0.0, y - 0.12, 1.3),
            (x - nose - 0.42, y - 0.2, height - 0.25), (x - nose - 0.42, -y + 0.2, height - 0.25)], GLASS)  # fmt: skip
    for side in (1, -1):
        glass = [(x - nose - 0.4, side * (y - 0.045), 1.35), (x - nose - 1.3, side * (y - 0.045), 1.35),
                 (x - nose - 1.3, side * (y - 0.07), 1.95), (x - nose - 0.6, side * (y - 0.07), 1.95)]  # fmt: skip
        b.face(glass if side > 0 else glass[::-1], GLASS)
        if emergency:
            stripe = [(x - nose, side * (y + 0.005), 0.85), (-x + 0.05, side * (y + 0.005), 0.85),
                      (-x + 0.05, side * (y - 0.01), 1.2), (x - nose, side * (y - 0.01), 1.2)]  # fmt: skip
            b.face(stripe if side > 0 else stripe[::-1], (40, 40, 210) if paint[0] > 200 else (245, 245, 245))
    glass = [(-x + 0.0, y - 0.2, 1.35), (-x + 0.0, -y + 0.2, 1.35), (-x + 0.03, -y + 0.25, height - 0.3),
             (-x + 0.03, y - 0.25, height - 0.3)]  # fmt: skip
    b.face(glass, GLASS)
    _rear_details(b, x, y, 1.35, paint, 0.45)
    _front_details(b, x, y, 1.15, 0.4)
    if emergency:
        _light_bar(b, -x + 0.25, y, height)
        _light_bar(b, x - nose - 0.9, y, height)


def _light_bar(b: Builder, x: float, y: float, z: float) -> None:
    b.prism((x - 0.15, -y + 0.3, z), (x + 0.15, y - 0.3, z + 0.2), (200, 110, 50))
    for i, side in enumerate((1, -1)):
        b.lamps.append(Lamp((x, side * (y - 0.45), z + 0.12), BLUE, 1.3, 0, f"blue{i}"))


def _heavy(b: Builder, variant: str, paint: Colour, size: tuple[float, float, float], rng: np.random.Generator) -> None:
    length, width, height = size
    x, y = 0.5 * length, 0.5 * width
    for at in (-x + 1.2, -x + 2.3, x - 1.2):
        _wheels(b, at, y, 0.5, pair=False)
    if variant == "bus":
        b.prism((-x, -y, 0.35), (x, y, height), paint, (0.05, 0.15, 0.05), shade(paint, 1.1))
        for side in (1, -1):
            for k in range(6):
                u = -x + 0.5 + k * (length - 1.2) / 6.0
                glass = [(u + (length - 1.2) / 6.0 - 0.15, side * (y - 0.02), 1.4), (u, side * (y - 0.02), 1.4),
                         (u, side * (y - 0.03), height - 0.5), (u + (length - 1.2) / 6.0 - 0.15, side * (y - 0.03), height - 0.5)]  # fmt: skip
                b.face(glass if side > 0 else glass[::-1], GLASS)
        b.face([(-x + 0.01, y - 0.3, 1.6), (-x + 0.01, -y + 0.3, 1.6), (-x + 0.03, -y + 0.3, height - 0.5),
                (-x + 0.03, y - 0.3, height - 0.5)], GLASS)  # fmt: skip
        b.face([(x - 0.03, -y + 0.15, 1.1), (x - 0.03, y - 0.15, 1.1), (x - 0.12, y - 0.2, height - 0.4),
                (x - 0.12, -y + 0.2, height - 0.4)], GLASS)  # fmt: skip
    else:
        box: Colour = tuple(float(c) for c in rng.uniform(90, 240, 3))  # type: ignore[assignment]
        b.prism((-x, -y, 0.95), (x - 2.3, y, height), box, (0.0, 0.0, 0.0), shade(box, 1.1))
        b.prism((x - 2.1, -y + 0.05, 0.5), (x, y - 0.05, min(height - 0.4, 2.9)), paint, (0.0, 0.25, 0.05))
        b.face([(x - 0.05, -y + 0.2, 1.5), (x - 0.05, y - 0.2, 1.5), (x - 0.22, y - 0.25, 2.4), (x - 0.22, -y + 0.25, 2.4)],
               GLASS)  # fmt: skip
        b.face([(-x, y - 0.1, 0.45), (-x, -y + 0.1, 0.45), (-x, -y + 0.1, 0.6), (-x, y - 0.1, 0.6)], (60, 60, 200))
    _rear_details(b, x, y, 1.15, paint, 0.35)
    _front_details(b, x, y, 1.0, 0.35)


def _wheels(b: Builder, x: float, y: float, radius: float, pair: bool = True) -> None:
    angles = np.arange(8) * (np.pi / 4) + np.pi / 8
    for at in (x, -x) if pair else (x,):
        for side in (1, -1):
            rim = [
                (at + radius * float(np.cos(a)), side * (y + 0.01), radius + radius * float(np.sin(a))) for a in angles
            ]
            b.face(rim[::-1] if side > 0 else rim, RUBBER)
            b.prism(
                (at - 0.8 * radius, side * (y - 0.1) - 0.1, 0.0),
                (at + 0.8 * radius, side * (y - 0.1) + 0.1, radius),
                RUBBER,
            )


def _rear_details(b: Builder, x: float, y: float, top: float, paint: Colour, low: float) -> None:
    z0, z1 = low + 0.45 * (top - low), low + 0.75 * (top - low)
    for side in (1, -1):
        y0, y1 = side * (y - 0.32), side * (y - 0.06)
        lamp = [
            (-x - 0.005, max(y0, y1), z0),
            (-x - 0.005, min(y0, y1), z0),
            (-x, min(y0, y1), z1),
            (-x, max(y0, y1), z1),
        ]
        b.face(lamp, (35, 25, 150))
        b.lamps.append(Lamp((-x - 0.02, side * (y - 0.18), 0.5 * (z0 + z1)), RED, 0.28, -1, "tail"))
    b.face([(-x - 0.01, 0.26, low + 0.12), (-x - 0.01, -0.26, low + 0.12), (-x - 0.01, -0.26, low + 0.24),
            (-x - 0.01, 0.26, low + 0.24)], (225, 230, 230))  # fmt: skip
    b.face([(-x - 0.006, y - 0.02, low - 0.06), (-x - 0.006, -y + 0.02, low - 0.06), (-x - 0.006, -y + 0.02, low + 0.06),
            (-x - 0.006, y - 0.02, low + 0.06)], shade(paint, 0.45))  # fmt: skip


def _front_details(b: Builder, x: float, y: float, top: float, low: float) -> None:
    z0, z1 = low + 0.45 * (top - low), low + 0.72 * (top - low)
    for side in (1, -1):
        y0, y1 = sorted((side * (y - 0.42), side * (y - 0.08)))
        b.face([(x + 0.005, y0, z0), (x + 0.005, y1, z0), (x - 0.04, y1, z1), (x - 0.04, y0, z1)], (215, 220, 220))
        b.lamps.append(Lamp((x + 0.02, side * (y - 0.25), 0.5 * (z0 + z1)), WHITE, 0.55, 1, "head"))
    b.face([(x + 0.006, -0.5, z0 - 0.08), (x + 0.006, 0.5, z0 - 0.08), (x - 0.02, 0.45, z1 - 0.05), (x - 0.02, -0.45, z1 - 0.05)],
           (35, 35, 35))  # fmt: skip
    b.face([(x + 0.01, -0.26, low + 0.05), (x + 0.01, 0.26, low + 0.05), (x + 0.01, 0.26, low + 0.16), (x + 0.01, -0.26, low + 0.16)],
           (225, 230, 230))  # fmt: skip
