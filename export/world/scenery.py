"""What stands beside the road: buildings, trees, poles, lamps, rails, parked cars and signs, fixed by the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.world.journey import Journey
from export.world.places import TUNNEL_HEIGHT_M
from export.world.road import LEAD_IN_M, Road, Section
from export.world.scenario import Scenario
from export.world.seeds import generator
from export.world.town import Town

SPEED_SIGNS = {"highway": "speed_120", "urban": "speed_50", "residential": "speed_30", "tunnel": "speed_80"}
SIGNS_OF = {
    "highway": ("guide", "curve", "speed_80", "roadworks", "speed_120", "keep_right"),
    "urban": ("yield", "priority", "no_entry", "no_parking", "keep_right", "roadworks", "curve", "speed_30", "stop"),
    "residential": ("yield", "priority", "no_entry", "no_parking", "curve", "speed_30", "stop", "speed_50"),
    "tunnel": ("speed_80", "keep_right", "curve", "roadworks"),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One fixed thing.

    kind: building, tree, post, lamp, rail, wall, parked, sign or portal. s_m, d_m: station and offset of its middle;
    x_m, y_m, heading_rad: the same in the world. size_m: length (along its heading), width, height.
    """

    id: int
    kind: str
    variant: str
    s_m: float
    d_m: float
    x_m: float
    y_m: float
    heading_rad: float
    size_m: tuple[float, float, float]
    look: int


@dataclass(frozen=True, slots=True)
class Scenery:
    """All fixed things, by station."""

    things: tuple[Thing, ...]
    stations_m: NDArray[np.float64]

    def between(self, start_m: float, end_m: float) -> tuple[Thing, ...]:
        """The things in a range of stations."""
        first, last = np.searchsorted(self.stations_m, [start_m, end_m])
        return self.things[int(first) : int(last)]


def build_scenery(seed: int, town: Town, scenario: Scenario, journey: Journey) -> Scenery:
    """Furnishes the road of a journey."""
    builder = _Builder(seed, town, scenario.sign_gap_m, journey)
    builder.mark_crossings()
    for section in journey.road.sections:
        builder.furnish(section)
    things = sorted(builder.things, key=lambda thing: (thing.s_m, thing.id))
    return Scenery(tuple(things), np.array([thing.s_m for thing in things]))


class _Builder:
    def __init__(self, seed: int, town: Town, sign_gap_m: float | None, journey: Journey) -> None:
        self.town, self.sign_gap_m = town, sign_gap_m
        self.rng = generator(seed, "scenery")
        self.journey = journey
        self.road: Road = journey.road
        self.things: list[Thing] = []

    def add(
        self, kind: str, variant: str, s_m: float, d_m: float, size_m: tuple[float, float, float], turn_rad: float = 0.0
    ) -> None:
        x, y, heading = self.road.position(np.array([s_m]), np.array([d_m]))
        self.things.append(
            Thing(
                20_000 + len(self.things), kind, variant, s_m, d_m, float(x[0]), float(y[0]),
                float(heading[0]) + turn_rad, size_m, int(self.rng.integers(1 << 30)),
            )
        )  # fmt: skip

    def furnish(self, section: Section) -> None:
        place, start, end = section.place, max(section.start_m, LEAD_IN_M - 60.0), section.end_m
        if place.name == "tunnel":
            self._tunnel(section)
        for side in (1, -1):
            if place.rail:
                for s in np.arange(start + 4.0, end - 4.0, 8.0):
                    self.add("rail", "steel", float(s), side * (self._edge(s) + 0.5), (8.0, 0.12, 0.78))
            if place.name == "highway":
                for s in np.arange(start + 20.0, end - 4.0, 50.0):
                    self.add("post", "delineator", float(s), side * (self._edge(s) + 0.9), (0.08, 0.14, 1.0))
            self._scatter("tree", place.trees_per_100m, start, end, side)
            self._buildings(place.buildings_per_100m, start, end, side)
            self._parked(place.parked_per_100m, start, end, side)
            if place.lamp_spacing_m:
                first = (
                    start
                    + float(self.rng.uniform(0.0, place.lamp_spacing_m))
                    + (0.5 * place.lamp_spacing_m if side > 0 else 0.0)
                )
                for s in np.arange(first, end - 5.0, place.lamp_spacing_m):
                    self.add(
                        "lamp", "street", float(s), side * (self._edge(s) + 0.6), (0.16, 0.16, 7.0), -side * 0.5 * np.pi
                    )
        if place.median_m[1] > 0.0:
            for s in np.arange(start + 4.0, end - 4.0, 8.0):
                self.add("rail", "steel", float(s), 0.0, (8.0, 0.3, 0.82))
        self._signs(section, start, end)

    def mark_crossings(self) -> None:
        for s in self.journey.crossings_m:
            self.add("sign", "crossing", s - 1.5, -(self._edge(s) + 0.7), (0.05, 0.75, 2.9))
            self.add("sign", "crossing", s + 1.5, self._edge(s) + 0.7, (0.05, 0.75, 2.9), np.pi)
        for s in self.journey.halts_m:
            self.add("sign", "stop", s, -(self._edge(s) + 0.7), (0.05, 0.8, 2.9))

    def _edge(self, s_m: float) -> float:
        return self.road.edge_m(float(s_m))

    def _clear(self, s_m: float, reach_m: float) -> bool:
        return all(abs(s_m - c) > reach_m for c in self.journey.crossings_m)

    def _scatter(self, kind: str, per_100m: float, start: float, end: float, side: int) -> None:
        for _ in range(int(self.rng.poisson(per_100m * (end - start) / 100.0))):
            s = float(self.rng.uniform(start, end))
            beyond = self._edge(s) + self.road.at(self.road.sidewalk_m, s)
            d = side * (beyond + 1.2 + float(self.rng.gamma(1.3, 6.0)))
            if not self._fits(s, d):
                continue
            height = float(self.rng.uniform(3.5, 9.5))
            variant = str(self.rng.choice(self.town.look.trees))
            self.add(kind, variant, s, d, (height * 0.55, height * 0.55, height))

    def _buildings(self, per_100m: float, start: float, end: float, side: int) -> None:
        if not per_100m:
            return
        s = start + 5.0
        while s < end - 10.0:
            length = float(self.rng.uniform(9.0, 24.0))
            if self.rng.random() < per_100m * (length + 2.0) / 110.0:
                middle = s + 0.5 * length
                urban = self.road.section(middle).place.name == "urban"
                depth = float(self.rng.uniform(8.0, 14.0))
                height = float(self.rng.uniform(7.0, 24.0)) if urban else float(self.rng.uniform(4.0, 8.5))
                setback = float(self.rng.uniform(0.6, 3.0)) if urban else float(self.rng.uniform(4.0, 9.0))
                beyond = self._edge(middle) + self.road.at(self.road.sidewalk_m, middle)
                d = side * (beyond + setback + 0.5 * depth)
                if self._fits(middle, d, 0.7 * length):
                    turn = 0.0 if side < 0 else np.pi
                    variant = "block" if urban else str(self.rng.choice(["house", "block"], p=[0.8, 0.2]))
                    self.add("building", variant, middle, d, (length, depth, height), turn)
            s += length + float(self.rng.uniform(0.0, 5.0))

    def _fits(self, s_m: float, d_m: float, reach_m: float = 2.0) -> bool:
        """Whether a thing there keeps off the road where it bends."""
        x, y, _ = self.road.position(np.array([s_m]), np.array([d_m]))
        low, high = int(max(s_m - 90.0, 0)), int(min(s_m + 90.0, self.road.length_m))
        distance = np.hypot(self.road.x_m[low:high] - x[0], self.road.y_m[low:high] - y[0])
        return bool(distance.min() > min(abs(d_m) - 0.3, self._edge(s_m) + reach_m + 2.0))

    def _parked(self, per_100m: float, start: float, end: float, side: int) -> None:
        for _ in range(int(self.rng.poisson(per_100m * float(self.rng.uniform(0.3, 1.6)) * (end - start) / 100.0))):
            s = float(self.rng.uniform(start + 20.0, end - 20.0))
            crowded = any(t.kind == "parked" and abs(t.s_m - s) < 6.2 and t.d_m * side > 0 for t in self.things)
            bend = abs(self.road.at(self.road.curvature_radpm, s)) > 0.012
            if crowded or bend or not self._clear(s, 9.0) or end - start < 60.0:
                continue
            length, width, height = 4.4, 1.8, 1.48
            variant = "car"
            if self.rng.random() < 0.15:
                variant, length, width, height = "van", 5.2, 1.95, 2.3
            d = side * (self._edge(s) - 1.1)
            self.add("parked", variant, s, d, (length, width, height), 0.0 if side < 0 else np.pi)

    def _signs(self, section: Section, start: float, end: float) -> None:
        place = section.place.name
        for s in np.arange(start + 12.0, end - 10.0, self.sign_gap_m or float(self.rng.uniform(50.0, 110.0))):
            usual = self.rng.random() < (0.45 if self.sign_gap_m is None else 0.1)
            variant = SPEED_SIGNS[place] if usual else str(self.rng.choice(SIGNS_OF[place]))
            if any(abs(t.s_m - s) < 9.0 and t.kind == "sign" and t.d_m < 0.0 for t in self.things):
                continue
            size = (0.05, 2.6, 4.6) if variant == "guide" else (0.05, 0.75, 2.7)
            self.add("sign", variant, float(s), -(self._edge(s) + (2.0 if variant == "guide" else 0.8)), size)

    def _tunnel(self, section: Section) -> None:
        for s in np.arange(section.start_m + 3.0, section.end_m - 3.0, 6.0):
            for side in (1, -1):
                self.add("wall", "tunnel", float(s), side * (self._edge(s) + 0.45), (6.3, 0.4, TUNNEL_HEIGHT_M))
        self.add("portal", "tunnel", section.start_m + 0.5, 0.0, (0.5, 2 * self._edge(section.start_m) + 1.0, 9.0))
