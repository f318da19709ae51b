"""Which worlds are rendered for training, validation and the held-out figures.

The splits lie in disjoint ranges of towns and of seeds, so no town, road, building, car, voice or rain drop is shared.
Most drives are of the varied kind; the others see to it that rare labels (siren, crossing, tunnel) come often enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge.errors import ConfigError
from export.world.town import TOWNS

FIRST_SEED = {"train": 1_000_000, "validation": 2_000_000, "held_out": 3_000_000, "pictures": 4_000_000}
SPLIT_TOWNS = {
    "train": TOWNS["training"],
    "validation": TOWNS["validation"],
    "held_out": TOWNS["held_out"],
    "pictures": TOWNS["further"],
}
FPS = 4  # every fifth frame of a 20 fps drive
PICTURES_FPS = 1  # the more worlds, the less a camera learns them by heart
WARM_UP_S = 1  # the first second fills the windows and is not used
SCENARIOS = ("varied", "varied", "crossing", "varied", "siren", "varied", "varied", "urban", "varied", "tunnel")
WEATHERS = {"clear": 0.4, "rain": 0.22, "fog": 0.18, "snow": 0.2}  # share of the worlds
LIGHTS = {"day": 0.5, "dusk": 0.2, "night": 0.3}


@dataclass(frozen=True, slots=True)
class WorldPlan:
    """One drive to render; `pictures_only`: neither sound nor motion nor LiDAR, but the whole truth."""

    seed: int
    town: int
    scenario: str
    weather: str
    light: str
    seconds: int
    fps: int = FPS
    pictures_only: bool = False

    @property
    def frames(self) -> int:
        return (self.seconds - WARM_UP_S) * self.fps


@dataclass(frozen=True, slots=True)
class Size:
    """How much is rendered: worlds by split, and the seconds of each."""

    train: int
    pictures: int
    fresh: int
    validation: int
    held_out: int
    seconds: int


FULL = Size(train=1120, pictures=5600, fresh=1120, validation=60, held_out=200, seconds=8)
SMALL = Size(train=6, pictures=4, fresh=2, validation=3, held_out=3, seconds=4)


def plans(split: str, size: Size, seed: int) -> list[WorldPlan]:
    """The drives of a split; `seed` shifts the training and validation worlds, never the held-out ones.

    `fresh` goes on where `train` ends: worlds of the training towns that the encoders are not trained on. `pictures`
    are for the camera: as many towns as worlds, a picture a second.

    Raises:
        ConfigError: no such split.
    """
    if split == "fresh":
        return plans("train", replace(size, train=size.train + size.fresh), seed)[size.train :]
    if split not in FIRST_SEED:
        raise ConfigError(f"split: expected one of {', '.join(FIRST_SEED)}, got {split!r}")
    first = FIRST_SEED[split] + (10_000 * (seed - 1) if split != "held_out" else 0)
    count: int = getattr(size, split)
    alone = split == "pictures"
    rng = np.random.default_rng(first)
    towns = SPLIT_TOWNS[split]
    drawn = []
    for i in range(count):
        weather = str(rng.choice(list(WEATHERS), p=list(WEATHERS.values())))
        light = str(rng.choice(list(LIGHTS), p=list(LIGHTS.values())))
        scenario = SCENARIOS[i % len(SCENARIOS)]
        town, fps = towns[i % len(towns)], PICTURES_FPS if alone else FPS
        drawn.append(WorldPlan(first + i, town, scenario, weather, light, size.seconds, fps, alone))
    return drawn
