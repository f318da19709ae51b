"""Towns: what a place looks and sounds like, each drawn from its own number only.

Training, validation and held-out towns are disjoint ranges of numbers, so that no palette, facade, siren or voice of a
held-out town was ever drawn for another. Some discrete choices exist in held-out towns only (HELD_OUT_ONLY).
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from edge.errors import ConfigError
from export.world.seeds import generator

TOWNS = {
    "training": range(200),
    "validation": range(200, 250),
    "held_out": range(300, 400),
    "further": range(1000, 10_000),  # for training, too
}
TOWN_SEED = 7_411  # towns are the same for every drive

CHOICES = {
    "facade": ("grid", "bands", "tall", "panes"),
    "tree": ("broadleaf", "conifer", "poplar", "bush"),
    "lamp": ("arm", "mast", "double"),
    "body": ("hatch", "saloon", "estate"),
    "siren": ("wail", "yelp", "hi_lo"),
    "fall": ("steady", "gusty"),  # how rain and snow come down
}
HELD_OUT_ONLY = {
    "facade": "timber",
    "tree": "palm",
    "lamp": "globe",
    "body": "pickup",
    "siren": "whoop",
    "fall": "squall",
}

Colour = tuple[float, float, float]  # blue, green, red, 0..255


@dataclass(frozen=True, slots=True)
class SignStyle:
    """How traffic signs are made. rim: width of borders, of 96. font: cv2's. size_m: side of a plate."""

    red: Colour = (40, 30, 200)
    blue: Colour = (170, 80, 20)
    green: Colour = (70, 120, 20)
    ground: Colour = (235, 238, 238)
    rim: int = 13
    font: int = 2
    size_m: float = 0.75


@dataclass(frozen=True, slots=True)
class Livery:
    """Emergency vehicles: paint, stripe, and the colours of the two flashing lights."""

    paint: Colour = (240, 240, 240)
    stripe: Colour = (40, 40, 210)
    beacons: tuple[Colour, Colour] = ((255.0, 90.0, 30.0), (255.0, 90.0, 30.0))


@dataclass(frozen=True, slots=True)
class Look:
    """What the camera sees. wear: share of the markings that is rubbed off. fall: how rain and snow come down."""

    walls: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    facades: tuple[str, ...]
    flat_roofs: float
    trees: tuple[str, ...]
    leaves: Colour
    lamp: str
    lamp_light: Colour
    asphalt: Colour
    paving: Colour
    grass: Colour
    marking: Colour
    centre_marking: Colour
    wear: float
    paints: tuple[Colour, ...]
    bodies: tuple[str, ...]
    clothes: tuple[Colour, ...]
    trousers: tuple[Colour, ...]
    hats: float
    fall: str
    livery: Livery
    signs: SignStyle


@dataclass(frozen=True, slots=True)
class Hearing:
    """What the microphone hears. Factors multiply the usual values.

    vowels: factors on the three formants. firing: weights of the engine's orders. sole: footfall's pitch (factor),
    decay (s) and share of scraping. response_db: the microphone at 60, 250, 1000, 3000 and 7500 Hz.
    """

    sirens: tuple[str, ...]
    siren_pitch: float
    siren_pace: float
    horn_hz: float
    horn_ratio: float
    pitch: float
    pace: float
    vowels: tuple[float, float, float]
    breath: float
    idle_rpm: float
    firing: tuple[float, ...]
    sole: tuple[float, float, float]
    response_db: tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sensor:
    """The camera's own character: cast (factor by channel), vignette and noise (shares), contrast and saturation."""

    tint: Colour
    vignette: float
    noise: float
    contrast: float
    saturation: float


@dataclass(frozen=True, slots=True)
class Town:
    """One town; mix: factors on the shares of car, van, truck and bus."""

    number: int
    look: Look
    hearing: Hearing
    sensor: Sensor
    mix: tuple[float, float, float, float] = field(default=(1.0, 1.0, 1.0, 1.0))


def town_of(seed: int) -> int:
    """The town of a drive that names none: always a training town."""
    return int(generator(seed, "town").integers(0, len(TOWNS["training"])))


def split_of(number: int) -> str:
    """The key of TOWNS.

    Raises:
        ConfigError: no such town.
    """
    for split, towns in TOWNS.items():
        if number in towns:
            return split
    expected = "0..199 or 1000..9999 (training), 200..249 (validation) or 300..399 (held out)"
    raise ConfigError(f"town: expected {expected}, got {number}")


@cache
def town(number: int) -> Town:
    """The town of that number.

    Raises:
        ConfigError: no such town.
    """
    novel = split_of(number) == "held_out"
    draw = _Draw(generator(TOWN_SEED, "town", number), novel)
    mix = tuple(float(np.exp(x)) for x in draw.rng.normal(0.0, 0.5, 4))
    return Town(number, _look(draw), _hearing(draw), _sensor(draw), mix)  # type: ignore[arg-type]


class _Draw:
    """Draws of one town."""

    def __init__(self, rng: np.random.Generator, novel: bool) -> None:
        self.rng, self.novel = rng, novel

    def some(self, kind: str, least: int, most: int) -> tuple[str, ...]:
        """A few of the choices; in a held-out town the novel one is among them half of the time, and then dominant."""
        count = int(self.rng.integers(least, most + 1))
        chosen = tuple(str(c) for c in self.rng.permutation(CHOICES[kind])[:count])
        new = self.rng.random() < 0.5
        if self.novel and new:
            return (HELD_OUT_ONLY[kind], HELD_OUT_ONLY[kind], *chosen)[: max(count + 1, 2)]
        return chosen

    def one(self, kind: str) -> str:
        return self.some(kind, 1, 1)[0]

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def colour(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
        """A colour of ranges of hue (turns, may exceed 1), saturation and value."""
        r, g, b = colorsys.hsv_to_rgb(self.uniform(*hue) % 1.0, self.uniform(*saturation), self.uniform(*value))
        return (255.0 * b, 255.0 * g, 255.0 * r)


def _look(draw: _Draw) -> Look:
    hue = draw.uniform(0.0, 0.14)
    other = draw.uniform(0.0, 1.0)
    vivid = draw.uniform(0.1, 0.5)
    walls = tuple(
        draw.colour((hue, hue + 0.06) if i < 4 else (other, other + 0.1), (0.04, vivid), (0.45, 0.88)) for i in range(6)
    )
    tone = draw.uniform(58.0, 120.0)
    warm = draw.uniform(-5.0, 5.0)
    white = draw.uniform(205.0, 236.0)
    yellow = (70.0, 185.0, 225.0)
    marking: Colour = (white, white, white) if draw.rng.random() < 0.85 else (150.0, 212.0, 230.0)
    return Look(
        walls=walls,
        roofs=tuple(draw.colour((-0.03, 0.08), (0.1, 0.65), (0.22, 0.55)) for _ in range(3)),
        facades=draw.some("facade", 1, 2),
        flat_roofs=draw.uniform(0.0, 0.7),
        trees=draw.some("tree", 2, 3),
        leaves=draw.colour((0.17, 0.38), (0.25, 0.65), (0.25, 0.5)),
        lamp=draw.one("lamp"),
        lamp_light=draw.colour((0.07, 0.15), (0.1, 0.55), (1.0, 1.0)),
        asphalt=(tone - warm, tone, tone + warm),
        paving=draw.colour((0.03, 0.14), (0.02, 0.25), (0.42, 0.62)),
        grass=draw.colour((0.14, 0.33), (0.3, 0.65), (0.3, 0.52)),
        marking=marking,
        centre_marking=yellow if draw.rng.random() < 0.3 else marking,
        wear=draw.uniform(0.0, 0.5),
        paints=(
            *(draw.colour((0.0, 1.0), (0.0, 0.06), (v - 0.1, v)) for v in (0.95, 0.3, 0.65)),
            *(draw.colour((0.0, 1.0), (0.3, 0.85), (0.25, 0.85)) for _ in range(5)),
        ),
        bodies=draw.some("body", 2, 3),
        clothes=tuple(draw.colour((0.0, 1.0), (0.1, 0.8), (0.2, 0.85)) for _ in range(8)),
        trousers=tuple(draw.colour((0.0, 1.0), (0.05, 0.4), (0.13, 0.5)) for _ in range(4)),
        hats=draw.uniform(0.0, 0.5),
        fall=draw.one("fall"),
        livery=_livery(draw),
        signs=_sign_style(draw),
    )


def _livery(draw: _Draw) -> Livery:
    white, red, yellow, blue = (240, 240, 240), (40, 40, 200), (40, 205, 235), (200, 80, 30)
    paint, stripe = ((white, red), (red, white), (yellow, blue), (white, blue), (yellow, red))[
        int(draw.rng.integers(5))
    ]
    light_blue, light_red, amber = (255.0, 90.0, 30.0), (40.0, 40.0, 255.0), (20.0, 150.0, 255.0)
    beacons = ((light_blue, light_blue), (light_blue, light_red), (light_blue, light_blue), (light_red, amber))
    return Livery(paint, stripe, beacons[int(draw.rng.integers(4))])


def _sign_style(draw: _Draw) -> SignStyle:
    ground: Colour = (235, 238, 238) if draw.rng.random() < 0.75 else (130, 220, 240)
    return SignStyle(
        red=draw.colour((-0.02, 0.02), (0.75, 0.95), (0.68, 0.88)),
        blue=draw.colour((0.56, 0.63), (0.7, 0.95), (0.5, 0.8)),
        green=draw.colour((0.36, 0.45), (0.6, 0.95), (0.35, 0.55)),
        ground=ground,
        rim=int(draw.rng.integers(9, 16)),
        font=int(draw.rng.choice([0, 2, 3])),
        size_m=draw.uniform(0.8, 1.0),
    )


def _hearing(draw: _Draw) -> Hearing:
    cylinders = int(draw.rng.choice([3, 4, 4, 6]))
    orders = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    firing = tuple(
        draw.uniform(0.6, 1.4) * (1.0 if (2.0 * order) % cylinders == 0 else 0.25) * order**-0.3 for order in orders
    )
    tract = draw.uniform(0.86, 1.18)
    first, second, third = (tract * draw.uniform(0.9, 1.12) for _ in range(3))
    low, high = draw.uniform(-6.0, 2.0), draw.uniform(-8.0, 4.0)
    return Hearing(
        sirens=draw.some("siren", 1, 2),
        siren_pitch=draw.uniform(0.82, 1.22),
        siren_pace=draw.uniform(0.75, 1.35),
        horn_hz=draw.uniform(320.0, 480.0),
        horn_ratio=float(draw.rng.choice([1.19, 1.24, 1.26, 1.335, 1.5])),
        pitch=draw.uniform(0.82, 1.25),
        pace=draw.uniform(0.75, 1.3),
        vowels=(first, second, third),
        breath=draw.uniform(0.3, 0.9),
        idle_rpm=draw.uniform(680.0, 950.0),
        firing=firing,
        sole=(draw.uniform(0.7, 1.6), draw.uniform(0.004, 0.018), draw.uniform(0.3, 1.4)),
        response_db=(low, 0.5 * low + draw.uniform(-1.0, 1.0), 0.0, draw.uniform(-2.0, 3.0), high),
    )


def _sensor(draw: _Draw) -> Sensor:
    return Sensor(
        tint=(draw.uniform(0.86, 1.0), draw.uniform(0.93, 1.0), draw.uniform(0.86, 1.0)),
        vignette=draw.uniform(0.08, 0.36),
        noise=draw.uniform(0.05, 0.17),
        contrast=draw.uniform(0.88, 1.15),
        saturation=draw.uniform(0.75, 1.2),
    )
