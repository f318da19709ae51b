"""Scenarios: which places a drive runs through, in which light and weather, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.errors import ConfigError
from export.world.places import PLACES
from export.world.seeds import generator

SCENARIOS = ("mixed", "highway", "urban", "residential", "tunnel", "siren", "crossing", "night", "varied", "demo")
WEATHERS = ("clear", "rain", "fog", "snow")
LIGHTS = ("day", "dusk", "night")
VARIED_CROWD, VARIED_SIGN_GAP_M, VARIED_WINDING = 1.6, 15.0, 1.8


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of road of one place, long enough for about `seconds` of driving."""

    place: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens about `at_s` into the drive.

    kind: siren, crossing (a hard brake), yield (someone crosses in good time), wait (people at a kerb who stay), horn
    or hard_lead. retries: how often what has no room at that time is put off.
    """

    kind: str
    at_s: float
    retries: int = 4


@dataclass(frozen=True, slots=True)
class FaultWindow:
    """A fault that belongs to the scenario itself; times in drive seconds."""

    stream: str
    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """The composed drive.

    lights: (instant in s, light from there on), ascending, the first at 0. crowd: factor on the people beside the road.
    sign_gap_m: distance of the signs along the road, None = as is usual for the place. winding: how much tighter than
    usual the streets bend.
    """

    name: str
    stretches: tuple[Stretch, ...]
    incidents: tuple[Incident, ...]
    weather: str
    lights: tuple[tuple[float, str], ...]
    faults: tuple[FaultWindow, ...] = ()
    crowd: float = 1.0
    sign_gap_m: float | None = None
    winding: float = 1.0


def compose(seed: int, name: str, seconds: float, weather: str | None, light: str | None) -> Scenario:
    """The scenario of that name for a drive of that length."""
    rng = generator(seed, "scenario", name)
    drawn_weather = str(rng.choice(WEATHERS, p=[0.54, 0.22, 0.13, 0.11]))
    drawn_light = str(rng.choice(LIGHTS, p=[0.6, 0.15, 0.25]))
    if name == "demo":
        scenario = _demo(seconds)
    else:
        stretches, incidents = _course(rng, name, seconds)
        if name == "night":
            drawn_light = "night"
        scenario = Scenario(name, stretches, incidents, drawn_weather, ((0.0, drawn_light),))
    return Scenario(
        name,
        scenario.stretches,
        scenario.incidents,
        weather or scenario.weather,
        ((0.0, light),) if light else scenario.lights,
        scenario.faults,
        VARIED_CROWD if name == "varied" else 1.0,
        VARIED_SIGN_GAP_M if name == "varied" else None,
        VARIED_WINDING if name == "varied" else 1.0,
    )


def require(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses an unknown option value in one line."""
    if value not in known:
        raise ConfigError(f"{what}: expected one of {', '.join(known)}, got {value!r}")


def _course(rng: np.random.Generator, name: str, seconds: float) -> tuple[tuple[Stretch, ...], tuple[Incident, ...]]:
    if name in PLACES and name != "tunnel":
        return (Stretch(name, seconds),), _everyday(rng, name, seconds)
    if name == "tunnel":
        outside = min(0.25 * seconds, 12.0)
        around = str(rng.choice(["highway", "urban"]))
        inside = max(min(0.5 * seconds, 40.0), 4.0)
        return (Stretch(around, outside), Stretch("tunnel", inside), Stretch(around, seconds)), ()
    if name == "siren":
        place = str(rng.choice(["highway", "urban"]))
        passages = np.arange(0.4 * min(seconds, 30.0), seconds, 45.0)
        return (Stretch(place, seconds),), tuple(Incident("siren", float(at)) for at in passages)
    if name == "crossing":
        place = str(rng.choice(["urban", "residential"], p=[0.7, 0.3]))
        first = 0.45 * min(seconds, 20.0)
        times = np.arange(first, seconds, 22.0)
        kinds = ["crossing", *rng.choice(["crossing", "yield"], size=max(len(times) - 1, 0))]
        return (Stretch(place, seconds),), tuple(Incident(str(k), float(t)) for k, t in zip(kinds, times))
    if name == "night":
        place = str(rng.choice(["highway", "urban", "residential"]))
        return (Stretch(place, seconds),), _everyday(rng, place, seconds)
    return _varied(rng, seconds) if name == "varied" else _mixed(rng, seconds)


def _mixed(rng: np.random.Generator, seconds: float) -> tuple[tuple[Stretch, ...], tuple[Incident, ...]]:
    stretches: list[Stretch] = []
    incidents: list[Incident] = []
    start = 0.0
    while start < seconds:
        place = str(rng.choice(["highway", "urban", "residential", "tunnel"], p=[0.27, 0.36, 0.25, 0.12]))
        if stretches and stretches[-1].place == place:
            continue
        length = float(rng.uniform(14.0, 35.0)) if place != "tunnel" else float(rng.uniform(8.0, 15.0))
        stretches.append(Stretch(place, length))
        span = min(length, seconds - start)
        incidents += [Incident(i.kind, i.at_s + start) for i in _everyday(rng, place, span)]
        start += length
    return tuple(stretches), tuple(incidents)


def _varied(rng: np.random.Generator, seconds: float) -> tuple[tuple[Stretch, ...], tuple[Incident, ...]]:
    """Many short situations: a new place every few seconds, and something happening nearly all of the time."""
    stretches: list[Stretch] = []
    start = 0.0
    while start < seconds:
        place = str(rng.choice(["highway", "urban", "residential", "tunnel"], p=[0.26, 0.36, 0.26, 0.12]))
        if stretches and stretches[-1].place == place:
            continue
        stretches.append(Stretch(place, float(rng.uniform(4.0, 7.0))))
        start += stretches[-1].seconds
    incidents: list[Incident] = []
    at = float(rng.uniform(1.0, 4.0))
    while at < seconds:
        incidents.append(Incident(str(rng.choice(["crossing", "yield", "wait"], p=[0.3, 0.4, 0.3])), at))
        at += float(rng.uniform(3.5, 6.5))
    for kind, every_s in (("horn", 9.0), ("hard_lead", 9.0), ("siren", 34.0)):
        first = float(rng.uniform(1.0, every_s))
        incidents += [Incident(kind, float(at)) for at in np.arange(first, seconds, every_s)]
    return tuple(stretches), tuple(sorted(incidents, key=lambda incident: (incident.at_s, incident.kind)))


def _everyday(rng: np.random.Generator, place: str, seconds: float) -> tuple[Incident, ...]:
    """What may happen on an ordinary stretch; rates per minute."""
    rates = {"horn": 1.2, "hard_lead": 0.5, "siren": 0.7}
    if place in ("urban", "residential"):
        rates |= {"yield": 2.0, "crossing": 0.7}
    if place == "tunnel":
        rates = {"horn": 1.0}
    incidents = []
    for kind, per_minute in rates.items():
        for _ in range(int(rng.poisson(per_minute * seconds / 60.0))):
            at_s = float(rng.uniform(0.15, 1.0) * seconds)
            incidents.append(Incident(kind, at_s))
    return tuple(sorted(incidents, key=lambda incident: (incident.at_s, incident.kind)))


def _demo(seconds: float) -> Scenario:
    """The show drive: siren passage, crossing pedestrian, camera fault, night stretch, scaled to its length."""
    return Scenario(
        "demo",
        (Stretch("urban", 0.58 * seconds), Stretch("highway", seconds)),
        (Incident("siren", 0.20 * seconds), Incident("crossing", 0.47 * seconds), Incident("horn", 0.51 * seconds)),
        "clear",
        ((0.0, "day"), (0.56 * seconds, "dusk"), (0.66 * seconds, "night")),
        (FaultWindow("camera", "corrupt", 0.86 * seconds, 0.90 * seconds),),
    )  # fmt: skip
