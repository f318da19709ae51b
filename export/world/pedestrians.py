"""Pedestrians: walkers on the pavements, people who wait at crossings, and people who cross.

Their intent is read off the finished motion, so that it is exact: on the road = crosses, about to be = will_cross.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.world.road import LEAD_IN_M, Road
from export.world.seeds import generator
from export.world.track import INTENTS, STEP_S, WILL_CROSS_S, Track

FIRST_ID = 10_000
KERB_M = 0.45  # where one waits, beyond the paved edge


@dataclass(slots=True)
class Crosser:
    """Someone at a crossing who sets out when told to; drivers can tell `notice_s` earlier."""

    id: int
    s_m: float
    side: int
    pace_mps: float
    look: int
    height_m: float
    start_m: float
    goal_m: float
    d_m: float
    sets_out_s: float | None = None
    notice_s: float = 1.0
    path: list[float] = field(default_factory=list)

    def step(self, time_s: float) -> None:
        """Waits, then walks to the far pavement."""
        if self.sets_out_s is not None and time_s >= self.sets_out_s:
            way = self.goal_m - self.d_m
            self.d_m += float(np.clip(way, -self.pace_mps * STEP_S, self.pace_mps * STEP_S))
        self.path.append(self.d_m)

    def on_road(self, edge_m: float) -> bool:
        return abs(self.d_m) < edge_m

    def done(self, edge_m: float) -> bool:
        return self.sets_out_s is not None and self.d_m * self.side < -edge_m

    def leaving_kerb(self, time_s: float, edge_m: float) -> bool:
        """Whether a driver can see that this person is on the way across or about to be."""
        about = self.sets_out_s is not None and time_s >= self.sets_out_s - self.notice_s
        return about and not self.done(edge_m)


def make_crosser(rng: np.random.Generator, road: Road, id: int, s_m: float) -> Crosser:
    """Someone who waits at the kerb at a station."""
    side = -1 if rng.random() < 0.65 else 1
    kerb = road.edge_m(s_m) + KERB_M
    start = side * (kerb + float(rng.uniform(0.0, 0.4)))
    goal = -side * (kerb + 0.8)
    return Crosser(
        id, s_m + float(rng.uniform(-1.2, 1.2)), side, float(rng.uniform(1.2, 1.8)), int(rng.integers(1 << 30)),
        float(rng.uniform(1.5, 1.92)), start, goal, start,
    )  # fmt: skip


def crosser_track(crosser: Crosser, road: Road) -> Track:
    """The finished motion of a crosser."""
    d = np.array(crosser.path)
    speed = np.abs(np.gradient(d, STEP_S))
    s = np.full(len(d), crosser.s_m)
    waits = intents(d, _edges_m(road, s), speed) == INTENTS.index("waits")
    heading = np.where(waits, np.pi * (crosser.look % 2), -crosser.side * np.pi / 2)  # turns to the road to cross it
    return _track(crosser.id, road, s, d, speed, heading, crosser.look, crosser.height_m)


def walkers(seed: int, road: Road, steps: int, crowd: float) -> list[Track]:
    """People who walk or stand on the pavements all along the road."""
    rng = generator(seed, "walkers")
    factor = crowd * float(rng.uniform(0.4, 1.8))
    tracks: list[Track] = []
    time = np.arange(steps) * STEP_S
    for section in road.sections:
        length = section.end_m - section.start_m
        count = int(rng.poisson(section.place.walkers_per_100m * factor * length / 100.0))
        for _ in range(count):
            s0 = float(rng.uniform(section.start_m + 25.0, max(section.end_m - 25.0, section.start_m + 26.0)))
            if s0 < LEAD_IN_M - 100.0:
                continue
            side = -1 if rng.random() < 0.55 else 1
            pace = 0.0 if rng.random() < 0.25 else float(rng.uniform(0.9, 1.7)) * (1 if rng.random() < 0.5 else -1)
            s = np.clip(s0 + pace * time, section.start_m + 22.0, section.end_m - 22.0)
            away = float(rng.uniform(0.25, 0.85))
            i = np.clip(s.astype(np.int64), 0, len(road.lanes) - 1)
            edge = road.half_median_m[i] + road.lanes[i] * road.lane_width_m[i] + road.shoulder_m[i]
            d = side * (edge + away * road.sidewalk_m[i] + 0.3)
            speed = np.where((s > section.start_m + 22.0) & (s < section.end_m - 22.0), abs(pace), 0.0)
            heading = np.full(steps, np.pi if pace < 0.0 else 0.0)  # who stands looks along the road
            height = float(rng.uniform(1.15, 1.92))
            look = int(rng.integers(1 << 30))
            tracks.append(_track(FIRST_ID + len(tracks), road, s, d, speed, heading, look, height))
    return tracks


def intents(d_m: NDArray[np.float64], edge_m: NDArray[np.float64], speed_mps: NDArray[np.float64]) -> NDArray[np.int8]:
    """Intent per step, as indices into INTENTS, from where the person is and will be."""
    on_road = np.abs(d_m) < edge_m
    horizon = round(WILL_CROSS_S / STEP_S)
    ahead = np.concatenate([[0], np.cumsum(on_road)])
    n = len(d_m)
    soon = ahead[np.minimum(np.arange(n) + horizon + 1, n)] - ahead[np.arange(n)] > 0
    intent = np.where(speed_mps > 0.2, INTENTS.index("walks"), INTENTS.index("waits"))
    intent = np.where(soon, INTENTS.index("will_cross"), intent)
    return np.where(on_road, INTENTS.index("crosses"), intent).astype(np.int8)


def _track(
    id: int,
    road: Road,
    s: NDArray[np.float64],
    d: NDArray[np.float64],
    speed: NDArray[np.float64],
    heading: NDArray[np.float64],
    look: int,
    height: float,
) -> Track:
    variant = "child" if height < 1.35 else "adult"
    size = (0.35, 0.55 * height / 1.75, height)
    return Track(
        id,
        "pedestrian",
        variant,
        0,
        s,
        d,
        speed,
        heading,
        np.zeros(len(s)),
        size,
        look,
        intents(d, _edges_m(road, s), speed),
    )


def _edges_m(road: Road, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offset of the paved edge at stations."""
    i = np.clip(s.astype(np.int64), 0, len(road.lanes) - 1)
    return np.asarray(road.half_median_m[i] + road.lanes[i] * road.lane_width_m[i] + road.shoulder_m[i])
