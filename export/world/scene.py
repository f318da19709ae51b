"""The scene of an instant: everything near the ego, in the levelled ego frame, from one journey."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from export.world.journey import Journey
from export.world.motion import Motion, Pose
from export.world.scenery import Scenery, Thing
from export.world.track import INTENTS, Track
from export.world.weather import Atmosphere, Weather

AHEAD_M, BEHIND_M = 190.0, 14.0


@dataclass(frozen=True, slots=True)
class Body:
    """A vehicle (moving or parked) or pedestrian: middle on the ground (m), facing (rad), both in the ego frame."""

    id: int
    kind: str
    variant: str
    intent: str
    x_m: float
    y_m: float
    turn_rad: float
    size_m: tuple[float, float, float]
    speed_mps: float
    braking: bool
    look: int
    walked_m: float = 0.0
    siren: bool = False


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fixed thing as placed in the ego frame."""

    thing: Thing
    x_m: float
    y_m: float
    turn_rad: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One instant of the world around the ego."""

    time_s: float
    pose: Pose
    station_m: float
    offset_m: float
    place: str
    air: Atmosphere
    bodies: tuple[Body, ...]
    fixtures: tuple[Fixture, ...]


class Stage:
    """Gives the scene of any instant of a journey."""

    def __init__(self, journey: Journey, scenery: Scenery, weather: Weather, motion: Motion) -> None:
        self.journey, self.scenery, self.weather, self.motion = journey, scenery, weather, motion
        self._sirens = {siren.vehicle_id for siren in journey.sirens}

    def at(self, time_s: float) -> Scene:
        """The scene at a drive time."""
        pose = self.motion.pose(time_s)
        station, offset = self.motion.station_m(time_s)
        fixtures = self._fixtures(pose, station)
        bodies = [self._parked(f) for f in fixtures if f.thing.kind == "parked"]
        for track in (*self.journey.vehicles, *self.journey.pedestrians):
            if track.alive(time_s):
                s = track.sample(track.s_m, time_s)
                if -60.0 < s - station < AHEAD_M + 30.0:
                    bodies.append(self._body(track, time_s, s, pose))
        return Scene(
            time_s, pose, station, offset, self.journey.road.section(station).place.name, self.weather.at(time_s),
            tuple(bodies), fixtures,
        )  # fmt: skip

    def locate(self, track: Track, time_s: float) -> tuple[float, float, float]:
        """World x, y and heading of a track at an instant."""
        s, d = track.sample(track.s_m, time_s), track.sample(track.d_m, time_s)
        x, y, heading = self.journey.road.position(np.array([s]), np.array([d]))
        return float(x[0]), float(y[0]), float(heading[0])

    def _fixtures(self, pose: Pose, station_m: float) -> tuple[Fixture, ...]:
        things = self.scenery.between(station_m - BEHIND_M, station_m + AHEAD_M)
        if not things:
            return ()
        x, y = pose.to_ego(np.array([t.x_m for t in things]), np.array([t.y_m for t in things]))
        return tuple(
            Fixture(thing, fx, fy, thing.heading_rad - pose.heading_rad)
            for thing, fx, fy in zip(things, x.tolist(), y.tolist())
            if fx > -BEHIND_M
        )

    def _parked(self, fixture: Fixture) -> Body:
        thing = fixture.thing
        return Body(
            thing.id, "vehicle", thing.variant, "", fixture.x_m, fixture.y_m, fixture.turn_rad, thing.size_m,
            0.0, False, thing.look,
        )  # fmt: skip

    def _body(self, track: Track, time_s: float, s_m: float, pose: Pose) -> Body:
        wx, wy, reference = self.locate(track, time_s)
        x, y = pose.to_ego(np.array([wx]), np.array([wy]))
        i, _ = track.index(time_s)
        turn = reference + float(track.heading_rad[i]) - pose.heading_rad
        turn = math.atan2(math.sin(turn), math.cos(turn))
        speed = track.sample(track.speed_mps, time_s)
        intent = "" if track.intent is None else INTENTS[int(track.intent[i])]
        walked = 0.0
        if track.kind == "pedestrian":
            walked = abs(s_m - float(track.s_m[0])) + abs(track.sample(track.d_m, time_s) - float(track.d_m[0]))
        return Body(
            track.id, track.kind, track.variant, intent, float(x[0]), float(y[0]), turn, track.size_m, speed,
            float(track.acceleration_mps2[i]) < -0.8, track.look, walked, track.id in self._sirens,
        )  # fmt: skip
