"""Which worlds are rendered for training, validation and the held-out figures.

The three splits use disjoint seeds, so no road, building, car, voice or rain drop is shared. Scenarios, weather and
light are dealt so that rare labels (siren, horn, crossing, tunnel, fog) come often enough in each split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAIN_SEED, VALIDATION_SEED, HELD_OUT_SEED = 1_000, 5_000, 10_000
FPS = 4  # every fifth frame of a 20 fps drive
WARM_UP_S = 1  # the first second fills the windows and is not used
SCENARIOS = (
    "mixed", "urban", "siren", "highway", "crossing", "tunnel", "residential", "siren", "mixed", "crossing", "night",
    "urban",
)  # fmt: skip
WEATHERS = {"clear": 0.5, "rain": 0.27, "fog": 0.23}  # share of the worlds
LIGHTS = {"day": 0.5, "dusk": 0.2, "night": 0.3}


@dataclass(frozen=True, slots=True)
class WorldPlan:
    """One drive to render."""

    seed: int
    scenario: str
    weather: str
    light: str
    seconds: int

    @property
    def frames(self) -> int:
        return (self.seconds - WARM_UP_S) * FPS


@dataclass(frozen=True, slots=True)
class Size:
    """How much is rendered: worlds by split, and the seconds of each."""

    train: int
    validation: int
    held_out: int
    seconds: int


FULL = Size(train=84, validation=20, held_out=40, seconds=20)
SMALL = Size(train=8, validation=4, held_out=4, seconds=4)


def plans(split: str, size: Size, seed: int) -> list[WorldPlan]:
    """The drives of a split; `seed` shifts the training and validation worlds, never the held-out ones."""
    first, count = {
        "train": (TRAIN_SEED + 20_000 * (seed - 1), size.train),
        "validation": (VALIDATION_SEED + 20_000 * (seed - 1), size.validation),
        "held_out": (HELD_OUT_SEED, size.held_out),
    }[split]
    rng = np.random.default_rng(first)
    drawn = []
    for i in range(count):
        scenario = SCENARIOS[i % len(SCENARIOS)]
        weather = str(rng.choice(list(WEATHERS), p=list(WEATHERS.values())))
        light = str(rng.choice(list(LIGHTS), p=list(LIGHTS.values())))
        drawn.append(WorldPlan(first + i, scenario, weather, "night" if scenario == "night" else light, size.seconds))
    return drawn
