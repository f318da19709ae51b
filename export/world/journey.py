"""The journey: everything that moves, worked out once before anything is rendered.

One pass in steps of 50 ms advances the ego, the traffic and the people at crossings against each other; what comes out
are tracks, which every sensor then samples at its own instants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from export.world.bumps import Bump, lay
from export.world.driver import Driver
from export.world.pedestrians import Crosser, crosser_track, make_crosser, walkers
from export.world.road import LEAD_IN_M, Road, build_road
from export.world.scenario import Incident, Scenario
from export.world.seeds import generator
from export.world.town import Town
from export.world.track import STEP_S, Track
from export.world.traffic import Traffic, bend_limit_mps

TAIL_S = 2.0  # worked out beyond the end, so that truth can look ahead
STOP_LINE_M = 5.0  # where one stops before a crossing, to the ego's middle
FIRST_CROSSER_ID = 5_000
RETRY_S = 2.0
CLEAR_M = 1.5  # who is this far beyond the middle of the road no longer keeps the ego waiting


@dataclass(frozen=True, slots=True)
class Horn:
    """Someone sounds the horn."""

    start_s: float
    seconds: float
    vehicle_id: int


@dataclass(frozen=True, slots=True)
class Siren:
    """The siren of one emergency vehicle; kind is wail, yelp, hi_lo or whoop."""

    vehicle_id: int
    kind: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Journey:
    """The worked-out drive; crossings and halts are stations, bumps lie along the road in order."""

    road: Road
    ego: Track
    vehicles: tuple[Track, ...]
    pedestrians: tuple[Track, ...]
    crossings_m: tuple[float, ...]
    halts_m: tuple[float, ...]
    horns: tuple[Horn, ...]
    sirens: tuple[Siren, ...]
    bumps: tuple[Bump, ...] = ()


def undertake(seed: int, town: Town, scenario: Scenario, seconds: float, surface: str = "smooth") -> Journey:
    """Works the journey out; `surface` is one of bumps.SURFACES."""
    road = build_road(seed, scenario.stretches, seconds, scenario.winding)
    worker = _Undertaking(seed, town, road, scenario)
    steps = math.ceil((seconds + TAIL_S) / STEP_S) + 1
    for step in range(steps):
        worker.step(step)
    people = [crosser_track(crosser, road) for crosser, _ in worker.crossers]
    ego = worker.ego.track()
    return Journey(
        road,
        ego,
        tuple(worker.traffic.tracks()),
        (*people, *walkers(seed, road, steps, scenario.crowd)),
        tuple(sorted(worker.crossings)),
        tuple(worker.halts),
        tuple(worker.horns),
        tuple(worker.sirens),
        lay(seed, road, ego) if surface == "rough" else (),
    )


class _Undertaking:
    """The state of the pass."""

    def __init__(self, seed: int, town: Town, road: Road, scenario: Scenario) -> None:
        self.rng = generator(seed, "journey")
        self.town, self.crowd = town, scenario.crowd
        self.road = road
        self.waiting = sorted(scenario.incidents, key=lambda incident: incident.at_s)
        start = road.section(LEAD_IN_M)
        lane = float(self.rng.integers(0, start.lanes))
        speed = min(start.speed_mps * float(self.rng.uniform(0.8, 1.0)), bend_limit_mps(road, LEAD_IN_M, 1))
        self.ego = Driver(
            1, "car", 1, lane, LEAD_IN_M, -road.lane_m(LEAD_IN_M, lane), speed, start.speed_mps, 0, (4.5, 1.85, 1.5), 0
        )
        self.traffic = Traffic(seed, town, road, self.ego)
        self.crossers: list[tuple[Crosser, str]] = []
        self.crossings: list[float] = []
        self.halts = _halts(self.rng, road)
        self.halted_s = 0.0
        self.next_halt = 0
        self.horns: list[Horn] = []
        self.sirens: list[Siren] = []
        self.wander = self.rng.uniform(0.0, 2 * math.pi, size=3)
        self._static_crossings()

    def step(self, step: int) -> None:
        time_s = step * STEP_S
        while self.waiting and time_s >= self.waiting[0].at_s - self._notice_s(self.waiting[0]):
            self._begin(self.waiting.pop(0), step, time_s)
        used = self._crossings_in_use(time_s)
        self._drive_ego(time_s, self._crossings_in_use(time_s, ego_half=True))
        self.traffic.step(step, time_s, used)
        for crosser, manner in self.crossers:
            self._prompt(crosser, manner, time_s)
            crosser.step(time_s)

    def _static_crossings(self) -> None:
        """Crossings where people only wait, or cross behind or far ahead of the ego."""
        for section in self.road.sections:
            if section.place.name not in ("urban", "residential"):
                continue
            for s in np.arange(section.start_m + 60.0, section.end_m - 40.0, 170.0):
                at = float(s + self.rng.uniform(-30.0, 30.0))
                if at > LEAD_IN_M + 25.0 and self.rng.random() < 0.6:
                    self._crossing(at, ["stays"] * round(self.crowd * float(self.rng.integers(0, 3))), 0)

    def _crossing(self, s_m: float, manners: list[str], steps_before: int) -> None:
        self.crossings.append(s_m)
        for manner in manners:
            crosser = make_crosser(self.rng, self.road, FIRST_CROSSER_ID + len(self.crossers), s_m)
            crosser.path = [crosser.d_m] * steps_before
            self.crossers.append((crosser, manner))

    def _notice_s(self, incident: Incident) -> float:
        return {"crossing": 8.0, "yield": 8.0, "wait": 8.0, "siren": min(13.0, 0.9 * incident.at_s)}.get(
            incident.kind, 0.0
        )

    def _begin(self, incident: Incident, step: int, time_s: float) -> None:
        lead_s = max(incident.at_s - time_s, 0.0)
        if incident.kind in ("crossing", "yield", "wait"):
            if not self._plan_crossing(incident.kind, lead_s, step) and incident.retries:
                later = Incident(incident.kind, max(incident.at_s, time_s) + RETRY_S, incident.retries - 1)
                self.waiting = sorted([*self.waiting, later], key=lambda incident: incident.at_s)
        elif incident.kind == "siren":
            vehicle = self.traffic.send_siren(step, lead_s, oncoming=self.rng.random() < 0.35)
            kind = str(self.rng.choice(self.town.hearing.sirens))
            self.sirens.append(Siren(vehicle.id, kind, time_s))
        elif incident.kind == "horn":
            vehicle_near = self.traffic.nearest(70.0)
            if vehicle_near is not None:
                self.horns.append(Horn(time_s, float(self.rng.uniform(0.5, 1.6)), vehicle_near.id))
        elif incident.kind == "hard_lead":
            leader = self.traffic.leader(60.0)
            if leader is not None:
                leader.brake_until_s = time_s + 2.5

    def _plan_crossing(self, kind: str, lead_s: float, step: int) -> bool:
        """Puts the crossing where the ego will be, far enough and where people walk; False if there is no room."""
        road, ego = self.road, self.ego
        pace = max(min(road.section(ego.s_m).speed_mps, bend_limit_mps(road, ego.s_m, 1)), 6.0)
        s = ego.s_m + max(0.5 * (pace + max(ego.speed_mps, 0.6 * pace)) * (lead_s + 1.5), 30.0)
        section = road.section(s)
        if section.place.name not in ("urban", "residential"):
            s = min(s, section.start_m - 45.0)
        s = self._straightest(s, ego.s_m + 30.0)
        if s < ego.s_m + 25.0 or s > road.length_m - 50.0:
            return False
        others = ["stays"] * int(self.rng.integers(0, 2))
        if kind == "yield":
            others += ["yield"] * int(self.rng.integers(0, 2))
        if any(abs(c.s_m - s) < 18.0 and manner != "stays" for c, manner in self.crossers):
            return False
        self.crossings = [c for c in self.crossings if abs(c - s) > 18.0]
        self.halts = [h for h in self.halts if abs(h - s) > 40.0]
        self._crossing(s, ["stays" if kind == "wait" else kind, *others], step)
        return True

    def _straightest(self, s_m: float, nearest_m: float) -> float:
        """The station within 25 m with the least bend before it: crossings are seen from afar."""
        options = np.arange(max(s_m - 25.0, nearest_m), s_m + 26.0, 5.0)
        if not len(options):
            return s_m
        bends = [np.abs(self.road.curvature_radpm[max(int(o) - 30, 0) : int(o) + 8]).max(initial=0.0) for o in options]
        return float(options[int(np.argmin(np.array(bends) + 1e-5 * np.abs(options - s_m)))])

    def _prompt(self, crosser: Crosser, manner: str, time_s: float) -> None:
        """Decides when someone sets out; "crossing" leaves the ego just room for a hard brake."""
        if crosser.sets_out_s is not None or manner == "stays":
            return
        ego = self.ego
        gap = crosser.s_m - STOP_LINE_M - ego.s_m
        if not 0.0 < gap < 60.0:
            return
        if manner == "crossing":
            crosser.notice_s = 0.0
            if gap < max(ego.speed_mps**2 / (2.0 * 5.2) + ego.speed_mps * 0.35, 4.0):
                crosser.sets_out_s = time_s
        elif gap < ego.speed_mps**2 / (2.0 * 1.8) + 8.0:
            crosser.sets_out_s = time_s + 1.0

    def _crossings_in_use(self, time_s: float, ego_half: bool = False) -> list[float]:
        """Stations where someone is on the way across; with `ego_half` only while they may still meet the ego."""
        stations = []
        for crosser, _ in self.crossers:
            if ego_half and crosser.side < 0 and crosser.d_m > CLEAR_M:
                continue
            if crosser.sets_out_s is not None and crosser.leaving_kerb(time_s, self.road.edge_m(crosser.s_m)):
                stations.append(crosser.s_m)
        return stations

    def _drive_ego(self, time_s: float, used: list[float]) -> None:
        ego, road = self.ego, self.road
        limit = min(road.section(ego.s_m).speed_mps, bend_limit_mps(road, ego.s_m, 1))
        ahead = road.section(ego.s_m + max(ego.speed_mps * 3.0, 10.0)).speed_mps
        limit = min(limit, max(ahead, ego.speed_mps - 2.0) if ahead < limit else limit)
        offset = -road.lane_m(ego.s_m, self._lane(ego)) + self._wander_m(time_s)
        siren = next((d for d in self.traffic.drivers if d.variant == "emergency"), None)
        if siren is not None and -90.0 < siren.s_m - ego.s_m < 60.0:
            if road.at(road.lanes, ego.s_m) > 1.6:
                ego.lane = max(ego.lane, 1.0 if siren.direction > 0 else ego.lane)
            else:
                offset -= 0.8
            limit *= 0.8
        wanted = ego.follow(limit, *self.traffic.gap_ahead(ego, []))
        wanted = min(wanted, self._for_crossings(used), self._for_halts(time_s))
        ego.advance(wanted, offset)
        ego.remember()

    def _for_crossings(self, used: list[float]) -> float:
        ego = self.ego
        wanted = math.inf
        for s in used:
            gap = s - STOP_LINE_M - ego.s_m
            if -1.5 < gap < 70.0:
                needed = ego.speed_mps**2 / (2.0 * max(gap, 0.2))
                wanted = min(wanted, -needed if needed > 1.2 else (0.4 if gap > 3.0 else -1.0))
        return wanted

    def _for_halts(self, time_s: float) -> float:
        """Stops at the next stop line, stands a moment, drives on."""
        while self.next_halt < len(self.halts) and self.halts[self.next_halt] < self.ego.s_m - 1.0:
            self.next_halt += 1
        if self.next_halt >= len(self.halts):
            return math.inf
        gap = self.halts[self.next_halt] - 3.0 - self.ego.s_m
        if gap > 60.0 or gap < -1.5:
            return math.inf
        if self.ego.speed_mps < 0.1 and gap < 4.0:
            self.halted_s += STEP_S
            if self.halted_s > 1.5:
                self.halted_s = 0.0
                self.next_halt += 1
                return math.inf
        needed = self.ego.speed_mps**2 / (2.0 * max(gap, 0.3))
        return -needed if needed > 1.1 else (0.3 if gap > 2.0 else -1.0)

    def _wander_m(self, time_s: float) -> float:
        a, b, c = self.wander
        return (
            0.13 * math.sin(0.31 * time_s + a) + 0.08 * math.sin(0.73 * time_s + b) + 0.04 * math.sin(1.3 * time_s + c)
        )

    def _lane(self, driver: Driver) -> float:
        return min(driver.lane, max(round(self.road.at(self.road.lanes, driver.s_m)), 1) - 1.0)


def _halts(rng: np.random.Generator, road: Road) -> list[float]:
    """Stations of stop signs."""
    halts = []
    for section in road.sections:
        if section.place.name != "residential":
            continue
        for s in np.arange(section.start_m + 110.0, section.end_m - 60.0, 260.0):
            at = float(s + rng.uniform(-40.0, 40.0))
            if at > LEAD_IN_M + 60.0 and rng.random() < 0.6:
                halts.append(at)
    return halts
