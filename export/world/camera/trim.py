"""Parts that vehicles share: panels, wheels, lamps and plates, in the vehicle's frame."""

from __future__ import annotations

import math

from export.world.camera.model import Builder, Colour, Lamp, shade

GLASS: Colour = (72, 60, 50)
RUBBER: Colour = (26, 26, 27)
PLATE: Colour = (225, 230, 230)
DARK: Colour = (34, 34, 35)
RED, WHITE = (40.0, 30.0, 255.0), (225.0, 245.0, 255.0)
Span = tuple[float, float]


def rear_panel(b: Builder, x: float, y: Span, z: Span, colour: Colour, lean: float = 0.0) -> None:
    """A panel that faces backwards; its top leans forward by `lean` metres."""
    b.face([(x, y[1], z[0]), (x, y[0], z[0]), (x + lean, y[0], z[1]), (x + lean, y[1], z[1])], colour)


def front_panel(b: Builder, x: float, y: Span, z: Span, colour: Colour, lean: float = 0.0) -> None:
    """A panel that faces forwards; its top leans backwards by `lean` metres."""
    b.face([(x, y[0], z[0]), (x, y[1], z[0]), (x - lean, y[1], z[1]), (x - lean, y[0], z[1])], colour)


def side_panel(
    b: Builder, side: int, y: float, x: Span, z: Span, colour: Colour, lean: float = 0.0, window: bool = False
) -> None:
    """A panel on the left (+1) or right (-1) at distance y; its top leans inwards by `lean` metres."""
    low, high = side * y, side * (y - lean)
    corners = [(x[1], low, z[0]), (x[0], low, z[0]), (x[0], high, z[1]), (x[1], high, z[1])]
    b.face(corners if side > 0 else corners[::-1], colour, window=window)


def wheels(b: Builder, stations_m: tuple[float, ...], y: float, radius: float) -> None:
    """Wheels seen from the sides: arch, tyre, rim."""
    for x in stations_m:
        for side in (1, -1):
            _disc(b, x, side, y + 0.004, radius, 1.14 * radius, DARK)
            _disc(b, x, side, y + 0.012, radius, radius, RUBBER)
            _disc(b, x, side, y + 0.02, radius, 0.58 * radius, (150, 150, 150))


def treads(b: Builder, stations_m: tuple[float, ...], y: float, radius: float) -> None:
    """Wheels seen from behind and ahead, below the body; to be added before it."""
    for x in stations_m:
        for side in (1, -1):
            inner, outer = sorted((side * (y - 0.26), side * (y - 0.02)))
            rear_panel(b, x - 0.75 * radius, (inner, outer), (0.0, 1.2 * radius), RUBBER)
            front_panel(b, x + 0.75 * radius, (inner, outer), (0.0, 1.2 * radius), RUBBER)


def rear_trim(b: Builder, x: float, y: float, z: Span, paint: Colour) -> None:
    """Tail lamps, number plate and bumper between the heights z."""
    low, top = z
    lamp = (low + 0.45 * (top - low), low + 0.78 * (top - low))
    for side in (1, -1):
        inner, outer = sorted((side * (y - 0.34), side * (y - 0.05)))
        rear_panel(b, -x - 0.006, (inner, outer), lamp, (35, 25, 150))
        b.lamps.append(Lamp((-x - 0.02, side * (y - 0.19), 0.5 * sum(lamp)), RED, 0.3, -1, "tail"))
    rear_panel(b, -x - 0.01, (-y + 0.04, y - 0.04), (low - 0.06, low + 0.1), shade(paint, 0.45))
    rear_panel(b, -x - 0.014, (-0.26, 0.26), (low + 0.14, low + 0.26), PLATE)


def front_trim(b: Builder, x: float, y: float, z: Span) -> None:
    """Headlamps, grille and number plate between the heights z."""
    low, top = z
    lamp = (low + 0.45 * (top - low), low + 0.74 * (top - low))
    for side in (1, -1):
        inner, outer = sorted((side * (y - 0.46), side * (y - 0.07)))
        front_panel(b, x + 0.006, (inner, outer), lamp, (215, 220, 220), 0.05)
        b.lamps.append(Lamp((x + 0.02, side * (y - 0.26), 0.5 * sum(lamp)), WHITE, 0.55, 1, "head"))
    front_panel(b, x + 0.006, (-y + 0.5, y - 0.5), (lamp[0] - 0.06, lamp[1] - 0.04), DARK, 0.04)
    front_panel(b, x + 0.008, (-y + 0.15, y - 0.15), (low - 0.04, low + 0.08), (45, 45, 45))
    front_panel(b, x + 0.012, (-0.26, 0.26), (low + 0.02, low + 0.13), PLATE)


def light_bar(b: Builder, x: float, y: float, z: float, beacons: tuple[Colour, Colour]) -> None:
    """Lights across the roof; kinds beacon0 and beacon1 flash in turn."""
    b.prism((x - 0.15, -y + 0.3, z), (x + 0.15, y - 0.3, z + 0.2), shade(beacons[0], 0.8))
    for i, (side, colour) in enumerate(zip((1, -1), beacons)):
        b.lamps.append(Lamp((x, side * (y - 0.45), z + 0.12), colour, 1.4, 0, f"beacon{i}"))


def _disc(b: Builder, x: float, side: int, y: float, height: float, radius: float, colour: Colour) -> None:
    ring = []
    for k in range(8):
        angle = (k + 0.5) * math.pi / 4
        ring.append((x + radius * math.cos(angle), side * y, max(height + radius * math.sin(angle), 0.0)))
    b.face(ring[::-1] if side > 0 else ring, colour)
