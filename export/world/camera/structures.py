"""Fixed things as models in their own frame: x along their heading, y left, z up, origin on the ground."""

from __future__ import annotations

import math

import numpy as np

from export.world.camera.bodywork import vehicle
from export.world.camera.model import Builder, Colour, Lamp, Model, shade
from export.world.camera.trim import front_panel, rear_panel, side_panel
from export.world.scenery import Thing
from export.world.town import Look

SNOW = np.array([238.0, 236.0, 232.0])
STEEL: Colour = (165, 162, 158)
# metres of a bay, share of it that is window, height of the window
FACADES = {"grid": (3.0, 0.55, 1.45), "bands": (3.4, 0.97, 1.3), "tall": (2.2, 0.4, 2.1), "panes": (2.6, 0.86, 2.2),
           "timber": (2.6, 0.42, 1.2)}  # fmt: skip
# crowns of leaves: spread across, lowest and step of height (of the tree's), factor on the size of the clumps
CROWNS = {"broadleaf": (0.2, 0.46, 0.045, 1.0), "poplar": (0.05, 0.26, 0.08, 0.62), "bush": (0.3, 0.16, 0.05, 1.0)}
PANE: Colour = (88, 76, 66)
CONCRETE: Colour = (150, 155, 155)
BEAM: Colour = (42, 60, 78)


def structure(thing: Thing, style: Look, snow: float) -> Model:
    """The model of a fixed thing (trees and sign plates are drawn otherwise); snow: 0..1 on what lies flat."""
    rng = np.random.Generator(np.random.PCG64(thing.look))
    builder = Builder()
    if thing.kind == "parked":
        return vehicle(thing.variant, thing.look, thing.size_m, style)
    if thing.kind == "building":
        _building(builder, thing, rng, style, snow)
    elif thing.kind == "rail":
        _rail(builder, thing)
    elif thing.kind == "wall":
        _tunnel_wall(builder, thing)
    elif thing.kind == "portal":
        _portal(builder, thing)
    elif thing.kind == "lamp":
        _street_lamp(builder, thing, style)
    elif thing.kind == "post":
        builder.prism((-0.04, -0.07, 0.0), (0.04, 0.07, 1.0), (225, 228, 228))
        rear_panel(builder, -0.045, (-0.075, 0.075), (0.68, 0.86), (40, 40, 40))
    elif thing.kind == "sign":
        _sign_post(builder, thing)
    return builder.build()


def _building(b: Builder, thing: Thing, rng: np.random.Generator, style: Look, snow: float) -> None:
    """The side with +y faces the road: things across the road are turned round."""
    length, depth, height = thing.size_m
    x, y = 0.5 * length, 0.5 * depth
    wall = shade(style.walls[int(rng.integers(len(style.walls)))], float(rng.uniform(0.8, 1.15)))
    facade = style.facades[int(rng.integers(len(style.facades)))]
    b.prism((-x, -y, 0.0), (x, y, height), wall, roof=_snowy(np.array(shade(wall, 0.6)), snow))
    storey = float(rng.uniform(2.7, 3.4))
    bay_m, share, window_m = FACADES[facade]
    bays = max(int(length / (bay_m * float(rng.uniform(0.85, 1.2)))), 2)
    lit, width = float(rng.uniform(0.15, 0.5)), share * float(rng.uniform(0.85, 1.1))
    shop = thing.variant == "block" and rng.random() < 0.6
    if shop:
        side_panel(b, 1, y + 0.015, (-x, x), (2.75, 3.05), shade(wall, 0.7))
    for floor in range(max(int(height / storey), 1)):
        low = floor * storey + min(0.9, 0.5 * (storey - window_m) + 0.2)
        span = (low, min(low + window_m, height - 0.3)) if floor or not shop else (0.35, 2.6)
        if facade == "timber" and (floor or not shop):
            _timbers(b, y + 0.012, (-x, x), (floor * storey, min((floor + 1) * storey, height)), bays)
        for bay in range(bays):
            middle = -x + (bay + 0.5) * length / bays
            half = 0.5 * (width if floor or not shop else 0.85) * length / bays
            side_panel(b, 1, y + 0.02, (middle - half, middle + half), span, PANE, window=bool(rng.random() < lit))
        rear_panel(b, -x - 0.02, (-0.8 * y, 0.8 * y), span, shade(wall, 0.72))
        front_panel(b, x + 0.02, (-0.8 * y, 0.8 * y), span, shade(wall, 0.72))
    if thing.variant == "house" and rng.random() >= style.flat_roofs:
        roof = style.roofs[int(rng.integers(len(style.roofs)))]
        _gable_roof(b, x, y, height, wall, _snowy(np.array(roof), snow))


def _timbers(b: Builder, y: float, x: tuple[float, float], z: tuple[float, float], bays: int) -> None:
    """The dark beams of a half-timbered storey: sills, posts and braces."""
    side_panel(b, 1, y, x, (z[0], z[0] + 0.22), BEAM)
    for k in range(bays + 1):
        at = x[0] + (x[1] - x[0]) * k / bays
        side_panel(b, 1, y, (max(at - 0.12, x[0]), min(at + 0.12, x[1])), z, BEAM)
    wide = (x[1] - x[0]) / bays
    for k in range(0, bays, 2):
        left = x[0] + k * wide
        b.face([(left + 0.3, y, z[0]), (left, y, z[0]), (left + wide - 0.3, y, z[1]), (left + wide, y, z[1])], BEAM)


def _gable_roof(b: Builder, x: float, y: float, height: float, wall: Colour, roof: Colour) -> None:
    """Two slopes with the ridge along x."""
    ridge, eaves, over = height + 0.76 * y, height - 0.1, x + 0.3
    b.face([(over, y + 0.4, eaves), (-over, y + 0.4, eaves), (-over, 0, ridge), (over, 0, ridge)], roof)
    b.face([(-over, -y - 0.4, eaves), (over, -y - 0.4, eaves), (over, 0, ridge), (-over, 0, ridge)], roof)
    b.face([(-x, y, height), (-x, -y, height), (-x, 0, ridge)], wall)
    b.face([(x, -y, height), (x, y, height), (x, 0, ridge)], wall)


def _rail(b: Builder, thing: Thing) -> None:
    x, top = 0.5 * thing.size_m[0], thing.size_m[2]
    for z0, z1, tone in ((top - 0.34, top - 0.2, 0.8), (top - 0.2, top, 1.0)):
        b.face([(x, 0.0, z0), (-x, 0.0, z0), (-x, 0.0, z1), (x, 0.0, z1)], shade(STEEL, tone), two_sided=True)
    for at in (-2.0, 2.0):
        post = [
            (at + 0.06, 0.02, 0.0),
            (at - 0.06, 0.02, 0.0),
            (at - 0.06, 0.02, top - 0.2),
            (at + 0.06, 0.02, top - 0.2),
        ]
        b.face(post, shade(STEEL, 0.6), two_sided=True)


def _tunnel_wall(b: Builder, thing: Thing) -> None:
    x, top = 0.5 * thing.size_m[0], thing.size_m[2]
    reach = abs(thing.d_m)
    inward = -1.0 if thing.d_m > 0 else 1.0
    odd = int(thing.s_m / 6.0) % 2
    tone = 1.0 if odd else 0.93
    wall = [(x, 0.0, 0.0), (-x, 0.0, 0.0), (-x, 0.0, 2.6), (x, 0.0, 2.6)]
    b.face(wall, shade((165, 185, 195), tone), 0.62, two_sided=True)
    upper = [(x, 0.0, 2.6), (-x, 0.0, 2.6), (-x, inward * 0.8, top), (x, inward * 0.8, top)]
    b.face(upper, shade((95, 105, 112), tone), 0.42, two_sided=True)
    roof = [
        (x, inward * 0.8, top),
        (-x, inward * 0.8, top),
        (-x, inward * reach, top + 0.15),
        (x, inward * reach, top + 0.15),
    ]
    b.face(roof, shade((70, 78, 84), tone), 0.36, two_sided=True)
    if odd:
        v0, v1 = inward * 1.5, inward * 1.9
        b.face([(1.3, v0, top - 0.1), (-1.3, v0, top - 0.1), (-1.3, v1, top - 0.1), (1.3, v1, top - 0.1)],
               (190, 235, 255), 1.0, two_sided=True)  # fmt: skip


def _portal(b: Builder, thing: Thing) -> None:
    y, top = 0.5 * thing.size_m[1], thing.size_m[2]
    opening = 5.35
    for side in (1, -1):  # the vault draws in above the walls
        corner = [(0.0, side * y, 2.5), (0.0, side * (y - 1.0), opening), (0.0, side * y, opening)]
        b.face(corner, shade(CONCRETE, 0.93), two_sided=True)
    for low, high in ((-y - 14.0, -y), (y, y + 14.0)):
        b.face([(0, high, 0), (0, low, 0), (0, low, top), (0, high, top)], CONCRETE, two_sided=True)
    b.face([(0, y, opening), (0, -y, opening), (0, -y, top), (0, y, top)], shade(CONCRETE, 0.93), two_sided=True)


def _street_lamp(b: Builder, thing: Thing, style: Look) -> None:
    top = thing.size_m[2]
    pole: Colour = (110, 112, 110)
    if style.lamp in ("mast", "globe"):
        top *= 0.72
        b.prism((-0.07, -0.07, 0.0), (0.07, 0.07, top), pole, (0.02, 0.02, 0.02))
        wide = 0.42 if style.lamp == "globe" else 0.24
        heads = ((0.0, -wide, wide),) if style.lamp == "mast" else ((-0.7, -0.28, 0.28), (0.7, -0.28, 0.28))
        for middle, low, high in heads:
            b.prism((-0.25, middle + low, top), (0.25, middle + high, top + 2 * wide), (200, 235, 250), (0.1, 0.1, 0.1))
            b.lamps.append(Lamp((0.0, middle, top + wide), style.lamp_light, 0.9, 0, "street"))
        return
    b.prism((-0.08, -0.08, 0.0), (0.08, 0.08, top), pole, (0.03, 0.03, 0.03))
    for reach in (1.9,) if style.lamp == "arm" else (1.9, -1.9):
        low, high = sorted((0.0, reach))
        b.prism((low, -0.05, top - 0.1), (high, 0.05, top + 0.05), pole)
        near, far = sorted((0.6 * reach, reach))
        b.face([(near, -0.13, top - 0.12), (far, -0.13, top - 0.12), (far, 0.13, top - 0.12), (near, 0.13, top - 0.12)],
               (200, 235, 250), 0.9, two_sided=True)  # fmt: skip
        b.lamps.append(Lamp((0.8 * reach, 0.0, top - 0.15), style.lamp_light, 0.9, 0, "street"))


def _sign_post(b: Builder, thing: Thing) -> None:
    top = thing.size_m[2]
    if thing.variant == "guide":
        for side in (-0.9, 0.9):
            b.prism((-0.06, side - 0.06, 0.0), (0.06, side + 0.06, top - 0.2), (120, 122, 120))
        return
    b.prism((-0.035, -0.035, 0.0), (0.035, 0.035, top - 0.1), (140, 142, 140))


def canopy(thing: Thing, view_rad: float, style: Look, snow: float) -> Model:
    """A tree as seen from a direction: trunk and leaves as discs across the view, in the levelled ego's axes."""
    rng = np.random.Generator(np.random.PCG64(thing.look))
    height = thing.size_m[2]
    across = (math.sin(view_rad), -math.cos(view_rad))
    b = Builder()

    def at(u: float, z: float) -> tuple[float, float, float]:
        return (across[0] * u, across[1] * u, z)

    w = 0.035 * height
    b.face(
        [at(-w, 0.0), at(w, 0.0), at(0.7 * w, 0.5 * height), at(-0.7 * w, 0.5 * height)], (45, 62, 80), two_sided=True
    )
    green = np.array(style.leaves) * rng.uniform(0.75, 1.15) + rng.uniform(-10, 14, 3) * np.array([0.5, 0.6, 1.2])
    green += (SNOW - green) * (0.45 * snow)
    if thing.variant == "palm":
        for k in range(9):
            a = math.pi * (k / 8.0) * 1.25 - 0.125 * math.pi
            c, s = math.cos(a), math.sin(a)
            tip = at(0.34 * height * c, height * (0.82 + 0.2 * s))
            b.face(
                [at(0.0, 0.8 * height), at(0.18 * height * c - 0.03 * height * s, height * (0.86 + 0.14 * s)), tip,
                 at(0.18 * height * c + 0.03 * height * s, height * (0.8 + 0.14 * s))],
                _c(green * (0.7 + 0.05 * k)), two_sided=True,
            )  # fmt: skip
        b.face([at(-w, 0.4 * height), at(w, 0.4 * height), at(0.6 * w, 0.82 * height), at(-0.6 * w, 0.82 * height)],
               (60, 85, 105), two_sided=True)  # fmt: skip
        return b.build()
    if thing.variant == "conifer":
        for k in range(4):
            z0, z1, r = height * (0.16 + 0.19 * k), height * (0.5 + 0.17 * k), height * (0.24 - 0.05 * k)
            c = green * (0.62 + 0.1 * k)
            b.face(
                [at(-r, z0), at(r, z0), at(0.02, min(z1, height)), at(-0.02, min(z1, height))], _c(c), two_sided=True
            )
        return b.build()
    spread, foot, step, wide = CROWNS[thing.variant]
    for k in range(9):
        u = float(rng.uniform(-spread, spread)) * height
        z = height * (foot + step * k + float(rng.uniform(-0.03, 0.03)))
        r = wide * height * float(rng.uniform(0.14, 0.21)) * (1.0 - 0.05 * k)
        for tone, lift, share in ((0.62 + 0.06 * k, 0.0, 1.0), (0.78 + 0.07 * k, 0.25, 0.6)):
            angles, ragged = np.arange(8) * math.pi / 4 + float(rng.uniform(0, 0.8)), rng.uniform(0.8, 1.12, 8)
            ring = [
                at(
                    u + lift * 0.4 * r + share * r * float(f) * math.cos(a),
                    z + lift * r + 0.85 * share * r * float(f) * math.sin(a),
                )
                for a, f in zip(angles.tolist(), ragged)
            ]
            b.face(ring, _c(green * tone), two_sided=True)
    return b.build()


def _snowy(colour: np.ndarray[tuple[int, ...], np.dtype[np.float64]], snow: float) -> Colour:
    return _c(colour + (SNOW - colour) * (0.85 * snow))


def _c(colour: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Colour:
    b, g, r = np.clip(colour, 5, 250)
    return (float(b), float(g), float(r))
