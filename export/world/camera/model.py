"""Shapes as lists of flat convex faces, in drawing order, with colours and lamps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

CORNERS = 8  # faces hold this many vertices; shorter ones repeat their last
Colour = tuple[float, float, float]  # blue, green, red, 0..255


@dataclass(frozen=True, slots=True)
class Lamp:
    """A light that shows: where (body frame, m), colour, glow radius (m), and where to (x: +1, -1, 0 = all round)."""

    at_m: tuple[float, float, float]
    colour: Colour
    radius_m: float
    facing: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """vertices_m: (v, 3). faces: (f, 8) indices. colours: (f, 3) BGR. glow: (f,) 0..1, own light. two_sided: (f,).
    windows: (f,), lit from within when lamps are on.

    parts: (first face, middle x) of pieces that lie behind one another along x; empty for a single piece.
    """

    vertices_m: F64
    faces: NDArray[np.int64]
    colours: F64
    glow: F64
    two_sided: NDArray[np.bool_]
    windows: NDArray[np.bool_]
    lamps: tuple[Lamp, ...] = ()
    parts: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Builder:
    """Collects faces; outward faces are counter-clockwise seen from outside."""

    vertices: list[tuple[float, float, float]] = field(default_factory=list)
    faces: list[list[int]] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    glows: list[float] = field(default_factory=list)
    sides: list[bool] = field(default_factory=list)
    windows: list[bool] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    parts: list[tuple[int, float]] = field(default_factory=list)

    def face(
        self,
        corners: list[tuple[float, float, float]],
        colour: Colour,
        glow: float = 0.0,
        two_sided: bool = False,
        window: bool = False,
    ) -> None:
        """One convex face of 3 to 8 corners."""
        first = len(self.vertices)
        self.vertices += corners
        index = list(range(first, first + len(corners)))
        self.faces.append(index + [index[-1]] * (CORNERS - len(index)))
        self.colours.append(colour)
        self.glows.append(glow)
        self.sides.append(two_sided)
        self.windows.append(window)

    def part(self, middle_x_m: float) -> None:
        """The faces from here on belong to a piece of its own along x."""
        self.parts.append((len(self.faces) if self.parts else 0, middle_x_m))

    def prism(
        self, low: tuple[float, float, float], high: tuple[float, float, float], colour: Colour,
        inset: tuple[float, float, float] = (0.0, 0.0, 0.0), roof: Colour | None = None,
    ) -> None:  # fmt: skip
        """A box from corner to corner, its top drawn in by inset = (rear, front, sides) metres; no floor."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        rear, front, side = inset
        u0, u1, v0, v1 = x0 + rear, x1 - front, y0 + side, y1 - side
        self.face([(x0, y1, z0), (x0, y0, z0), (u0, v0, z1), (u0, v1, z1)], colour)
        self.face([(x1, y0, z0), (x1, y1, z0), (u1, v1, z1), (u1, v0, z1)], colour)
        self.face([(x1, y1, z0), (x0, y1, z0), (u0, v1, z1), (u1, v1, z1)], colour)
        self.face([(x0, y0, z0), (x1, y0, z0), (u1, v0, z1), (u0, v0, z1)], colour)
        self.face([(u0, v0, z1), (u1, v0, z1), (u1, v1, z1), (u0, v1, z1)], roof or colour)

    def build(self) -> Model:
        """The finished model."""
        return Model(
            np.array(self.vertices, dtype=np.float64).reshape(-1, 3),
            np.array(self.faces, dtype=np.int64).reshape(-1, CORNERS),
            np.array(self.colours, dtype=np.float64).reshape(-1, 3),
            np.array(self.glows, dtype=np.float64),
            np.array(self.sides, dtype=np.bool_),
            np.array(self.windows, dtype=np.bool_),
            tuple(self.lamps),
            tuple(self.parts),
        )


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, lighter or darker."""
    return (min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0))
