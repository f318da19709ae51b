"""The other vehicles around the ego: who drives where, who joins and leaves, who makes way for a siren."""

from __future__ import annotations

import math

import numpy as np

from export.world.driver import SIZES_M, Driver
from export.world.road import Road
from export.world.seeds import generator
from export.world.town import Town
from export.world.track import Track

AHEAD_M, BEHIND_M = 250.0, 90.0
LATERAL_COMFORT_MPS2 = 2.2


class Traffic:
    """The moving vehicles of a journey, advanced step by step together with the ego."""

    def __init__(self, seed: int, town: Town, road: Road, ego: Driver) -> None:
        self._mix = np.array(town.mix)
        self._rng = generator(seed, "traffic")
        self._road = road
        self._ego = ego
        self._next_id = 2
        self._density = float(self._rng.uniform(0.45, 1.4))
        self.drivers: list[Driver] = []
        self._left: list[Driver] = []
        for direction in (1, -1):
            for s in np.arange(ego.s_m - BEHIND_M, ego.s_m + AHEAD_M, 24.0):
                if abs(s - ego.s_m) > 18.0 and self._rng.random() < self._wanted_per_m(float(s)) * 24.0:
                    self._join(direction, float(s + self._rng.uniform(-6.0, 6.0)), 0)

    def step(self, step: int, time_s: float, obstacles: list[float]) -> None:
        """Advances everyone by one step.

        Args:
            obstacles: stations of crossings in use, where everyone stops.
        """
        self._renew(step)
        siren = next((d for d in self.drivers if d.variant == "emergency"), None)
        for driver in self.drivers:
            emergency = driver.variant == "emergency"
            bend = bend_limit_mps(self._road, driver.s_m, driver.direction)
            limit = min(driver.desired_mps, bend)
            if driver.brake_until_s > time_s:
                limit *= 0.35
            offset = driver.direction * -self._road.lane_m(driver.s_m, self._lane(driver))
            if emergency:
                behind = driver.direction > 0 and driver.s_m < self._ego.s_m + 5.0
                pace = max(driver.desired_mps, self._ego.speed_mps + 8.0) if behind else driver.desired_mps
                wanted = 2.0 * (min(pace, 1.5 * bend) - driver.speed_mps)
            else:
                gap, speed = self.gap_ahead(driver, obstacles)
                wanted = driver.follow(limit, gap, speed)
                if driver.brake_until_s > time_s and driver.speed_mps > limit:
                    wanted = -5.5
                if siren is not None and abs(siren.s_m - driver.s_m) < 80.0:
                    offset = self._make_way(driver, siren, offset)
            driver.advance(wanted, offset)
            driver.remember()

    def _make_way(self, driver: Driver, siren: Driver, offset_m: float) -> float:
        """Where a vehicle goes while an emergency vehicle is near: out of its lane, or to the right."""
        if siren.direction == driver.direction and self._road.at(self._road.lanes, driver.s_m) > 1.6:
            driver.lane = max(driver.lane, 1.0)
            return offset_m
        return offset_m - driver.direction * 1.0

    def gap_ahead(self, driver: Driver, obstacles: list[float]) -> tuple[float, float]:
        """Distance to what is next in the driver's lane (inf if nothing is) and its speed."""
        gap, speed = math.inf, 0.0
        for other in (*self.drivers, self._ego):
            if other is driver or other.direction != driver.direction or other.variant == "emergency":
                continue
            ahead = other.along_m - driver.along_m
            if 0.0 < ahead < 120.0 and abs(other.offset_m - driver.offset_m) < 1.9:
                distance = ahead - 0.5 * (other.size_m[0] + driver.size_m[0])
                if distance < gap:
                    gap, speed = distance, other.speed_mps
        for s in obstacles:
            distance = driver.direction * s - driver.along_m - 3.5 - 0.5 * driver.size_m[0]
            if 0.3 < distance < min(gap, 90.0) and driver.speed_mps**2 / (2.0 * distance) < 7.0:
                gap, speed = distance, 0.0
        return gap, speed

    def send_siren(self, step: int, lead_s: float, oncoming: bool) -> Driver:
        """An emergency vehicle that meets the ego about `lead_s` from now."""
        ego, road = self._ego, self._road
        limit = road.section(ego.s_m).speed_mps
        speed = max(limit * 1.15, limit + 10.0) if not oncoming else max(limit, 16.0)
        if oncoming:
            s, direction = ego.s_m + lead_s * (speed + max(ego.speed_mps, 0.8 * limit)), -1
        else:
            s, direction = ego.s_m - lead_s * max(speed - 0.9 * limit, 6.0), 1
        s = min(max(s, 5.0), road.length_m - 5.0)
        one_lane = road.at(road.lanes, s) < 1.6
        lane = (-0.7 if direction > 0 else -0.3) if one_lane else 0.0  # along the middle of a narrow road
        driver = self._make("emergency", direction, lane, s, step)
        driver.speed_mps = driver.desired_mps = speed
        return self._admit(driver)

    def nearest(self, reach_m: float) -> Driver | None:
        """The vehicle closest to the ego, or None if none is within reach."""
        near = [d for d in self.drivers if abs(d.s_m - self._ego.s_m) < reach_m and d.variant != "emergency"]
        return min(near, key=lambda d: abs(d.s_m - self._ego.s_m), default=None)

    def leader(self, reach_m: float) -> Driver | None:
        """The vehicle ahead in the ego's lane, or None."""
        ego = self._ego
        near = [
            d for d in self.drivers
            if d.direction == 1 and 0 < d.s_m - ego.s_m < reach_m and abs(d.offset_m - ego.offset_m) < 1.9
        ]  # fmt: skip
        return min(near, key=lambda d: d.s_m, default=None)

    def tracks(self) -> list[Track]:
        """Everyone who ever drove, as finished tracks."""
        return [driver.track() for driver in (*self._left, *self.drivers) if len(driver.history) > 2]

    def _wanted_per_m(self, s_m: float) -> float:
        place = self._road.section(s_m).place
        return self._density * place.traffic_per_100m / 100.0

    def _renew(self, step: int) -> None:
        ego_s = self._ego.s_m
        for driver in list(self.drivers):
            reach = 420.0 if driver.variant == "emergency" else AHEAD_M + 30.0
            if not -max(BEHIND_M + 30.0, reach - 180.0) < driver.s_m - ego_s < reach or not (
                8.0 < driver.s_m < self._road.length_m - 8.0
            ):
                self.drivers.remove(driver)
                self._left.append(driver)
        if step % 10:
            return
        for direction in (1, -1):
            count = sum(d.direction == direction for d in self.drivers)
            if count >= self._wanted_per_m(ego_s) * (AHEAD_M + BEHIND_M):
                continue
            behind = direction > 0 and self._rng.random() < 0.3
            s = ego_s - BEHIND_M - 10.0 if behind else ego_s + AHEAD_M + 15.0
            if 20.0 < s < self._road.length_m - 20.0:
                self._join(direction, s, step, faster=behind)

    def _join(self, direction: int, s_m: float, step: int, faster: bool = False) -> None:
        lanes = max(round(self._road.at(self._road.lanes, s_m)), 1)
        lane = int(self._rng.integers(0, lanes))
        if faster and lanes == 1:
            return
        taken = any(d.direction == direction and abs(d.s_m - s_m) < 22.0 for d in self.drivers)
        if taken or (direction > 0 and abs(self._ego.s_m - s_m) < 18.0):
            return
        place = self._road.section(s_m).place.name
        shares = {
            "highway": [0.63, 0.1, 0.22, 0.05],
            "tunnel": [0.68, 0.12, 0.16, 0.04],
            "urban": [0.68, 0.14, 0.08, 0.1],
            "residential": [0.8, 0.13, 0.03, 0.04],
        }[place]
        weights = np.array(shares) * self._mix
        variant = str(self._rng.choice(["car", "van", "truck", "bus"], p=weights / weights.sum()))
        driver = self._make(variant, direction, lane, s_m, step)
        factor = self._rng.uniform(1.05, 1.25) if faster else self._rng.uniform(0.75, 1.08)
        driver.desired_mps *= float(factor) * (0.88 if variant in ("truck", "bus") and place == "highway" else 1.0)
        driver.speed_mps = min(driver.desired_mps, bend_limit_mps(self._road, s_m, direction))
        self._admit(driver)

    def _make(self, variant: str, direction: int, lane: float, s_m: float, step: int) -> Driver:
        look = int(self._rng.integers(1 << 30))
        stretch = self._rng.uniform(0.93, 1.08, size=3)
        length, width, height = (float(a * b) for a, b in zip(SIZES_M[variant], stretch))
        offset = -direction * self._road.lane_m(s_m, lane)
        limit = self._road.section(s_m).speed_mps
        return Driver(
            0, variant, direction, lane, direction * s_m, offset, limit, limit, look, (length, width, height), step
        )

    def _admit(self, driver: Driver) -> Driver:
        driver.id = self._next_id
        self._next_id += 1
        self.drivers.append(driver)
        return driver

    def _lane(self, driver: Driver) -> float:
        return min(driver.lane, max(round(self._road.at(self._road.lanes, driver.s_m)), 1) - 1.0)


def bend_limit_mps(road: Road, s_m: float, direction: int) -> float:
    """Speed at which the bends of the next metres stay comfortable."""
    i = int(s_m)
    ahead = (
        road.curvature_radpm[max(i - 2, 0) : i + 26] if direction > 0 else road.curvature_radpm[max(i - 26, 0) : i + 3]
    )
    sharpest = float(np.max(np.abs(ahead), initial=1e-6))
    return math.sqrt(LATERAL_COMFORT_MPS2 / max(sharpest, 1e-6))
