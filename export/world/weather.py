"""Weather and light of an instant: how much light falls from above, how far one sees, what is lit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from export.world.scenario import Scenario
from export.world.seeds import generator

DIMMING_S = 5.0  # one light passes into the next over this time
LEVELS = {"day": 1.0, "dusk": 0.40, "night": 0.11}


@dataclass(frozen=True, slots=True)
class Atmosphere:
    """What the air and the sky do at one instant.

    label: day, dusk, night. ambient: light from above, 1 = noon. extinction_per_m: contrast falls as exp(-beta d).
    lamps: 0..1, how far artificial light is switched on. shares: weights of the three lights (sum 1).
    """

    weather: str
    label: str
    ambient: float
    extinction_per_m: float
    lamps: float
    shares: tuple[float, float, float]


class Weather:
    """The atmosphere over the time of a drive."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        rng = generator(seed, "weather")
        self.kind = scenario.weather
        self.lights = scenario.lights
        sight_m = {"clear": rng.uniform(900.0, 2500.0), "rain": rng.uniform(220.0, 500.0),
                   "fog": np.exp(rng.uniform(np.log(45.0), np.log(140.0))),
                   "snow": rng.uniform(140.0, 420.0)}[scenario.weather]  # fmt: skip
        self.extinction_per_m = 3.0 / float(sight_m)
        self.sun_azimuth_rad = float(rng.uniform(-math.pi, math.pi))
        self.sun_elevation_rad = float(rng.uniform(0.22, 1.0))
        self.cloudiness = {"clear": float(rng.uniform(0.1, 0.6)), "rain": 0.95, "fog": 1.0, "snow": 0.95}[
            scenario.weather
        ]
        strength = float(rng.uniform(0.4, 1.0))
        self.rain = strength if scenario.weather == "rain" else 0.0
        self.snow = strength if scenario.weather == "snow" else 0.0

    def at(self, time_s: float) -> Atmosphere:
        """The atmosphere at a drive time."""
        shares = {"day": 0.0, "dusk": 0.0, "night": 0.0}
        label = self.lights[0][1]
        shares[label] = 1.0
        for start_s, light in self.lights[1:]:
            if time_s >= start_s:
                passed = min((time_s - start_s) / DIMMING_S, 1.0)
                shares = {name: share * (1.0 - passed) for name, share in shares.items()}
                shares[light] += passed
                label = light if passed >= 0.5 else label
        ambient = sum(LEVELS[name] * share for name, share in shares.items())
        ambient *= 1.0 - 0.25 * self.cloudiness * shares["day"]
        lamps = shares["night"] + 0.75 * shares["dusk"] + (0.2 if self.kind != "clear" else 0.0) * shares["day"]
        return Atmosphere(
            self.kind, label, ambient, self.extinction_per_m, min(lamps, 1.0),
            (shares["day"], shares["dusk"], shares["night"]),
        )  # fmt: skip
