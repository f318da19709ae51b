"""What is painted on and worn into the road, as world positions: lines, dashes, crossings, wheel tracks, patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.world.journey import Journey
from export.world.road import Road

F64 = NDArray[np.float64]

MARK_M = 0.14  # width of a line


class Edges:
    """World positions of every line along the road, one column a metre."""

    def __init__(self, road: Road) -> None:
        edge = road.half_median_m + road.lanes * road.lane_width_m
        paved = edge + road.shoulder_m
        walk = paved + road.sidewalk_m
        half = 0.5 * MARK_M
        green = np.maximum(road.half_median_m - 0.5, 0.0)
        lane = road.half_median_m + 0.5 * road.lane_width_m
        outer = road.half_median_m + (road.lanes - 0.5) * road.lane_width_m
        tracks = {"track_a": -lane - 0.75, "track_b": -lane + 0.75, "track_c": -outer - 0.75, "track_d": outer + 0.75}
        offsets = {
            "walk_left": walk, "walk_right": -walk, "kerb_left": paved + 0.18, "kerb_right": -paved - 0.18,
            "edge_left": paved, "edge_right": -paved,
            "median_left": green, "median_right": -green,
            "line_right_a": -edge + half, "line_right_b": -edge - half,
            "line_left_a": edge + half, "line_left_b": edge - half,
            "inner_right_a": -road.half_median_m + half, "inner_right_b": -road.half_median_m - half,
            "inner_left_a": road.half_median_m + half, "inner_left_b": road.half_median_m - half,
        }  # fmt: skip
        offsets |= {name + "1": d + 0.22 for name, d in tracks.items()} | {
            name + "2": d - 0.22 for name, d in tracks.items()
        }
        self.names = tuple(offsets)
        d = np.stack(list(offsets.values()))
        self.x_m = road.x_m[None, :] - d * np.sin(road.heading_rad)[None, :]
        self.y_m = road.y_m[None, :] + d * np.cos(road.heading_rad)[None, :]


def dashes(road: Road) -> tuple[F64, F64]:
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


def zebras(journey: Journey) -> tuple[F64, F64]:
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


def bumps(journey: Journey) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    """Joints (right across) and covers as quads, holes as octagons: stations (n,) and world corners (n, k, 2)."""
    road = journey.road
    quads, holes = [], []
    for bump in journey.bumps:
        if bump.kind == "hole":
            around = np.arange(8) * np.pi / 4 + bump.s_m
            s = bump.s_m + (0.35 + 0.1 * np.cos(3.0 * around)) * np.cos(around)
            d = bump.d_m + (0.22 + 0.05 * np.sin(2.0 * around)) * np.sin(around)
            holes.append((bump.s_m, np.stack(road.position(s, d)[:2], axis=1)))
            continue
        low, high, half = bump.d_m - 0.3, bump.d_m + 0.3, 0.3
        if bump.kind == "joint":
            i = int(bump.s_m)
            low, high, half = -road.edge_m(bump.s_m), -max(float(road.half_median_m[i]) - 0.5, 0.0), 0.08
        s = bump.s_m + np.array([-half, -half, half, half])
        quads.append((bump.s_m, np.stack(road.position(s, np.array([high, low, low, high]))[:2], axis=1)))
    return _listed(quads, 4), _listed(holes, 8)


def _listed(shapes: list[tuple[float, F64]], corners: int) -> tuple[F64, F64]:
    return np.array([s for s, _ in shapes]), np.array([shape for _, shape in shapes]).reshape(-1, corners, 2)


def patches(rng: np.random.Generator, road: Road) -> tuple[F64, F64, F64]:
    """Stations (n,), world corners (n, 4, 2) and tones (n,) of repaired asphalt and covers."""
    count = int(road.length_m * float(rng.uniform(0.01, 0.07)))
    stations = np.sort(rng.uniform(5.0, road.length_m - 25.0, count))
    corners = []
    for s in stations:
        edge = road.edge_m(float(s))
        long, wide = float(rng.uniform(0.6, 14.0)), float(rng.uniform(0.5, 1.8))
        d = float(rng.uniform(-edge + wide, edge - wide))
        x, y, _ = road.position(s + np.array([0.0, 0.0, long, long]), d + np.array([0.5, -0.5, -0.5, 0.5]) * wide)
        corners.append(np.stack([x, y], axis=1))
    return stations, np.array(corners).reshape(-1, 4, 2), rng.uniform(0.72, 1.14, count)
