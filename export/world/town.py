"""Towns: what a place looks and sounds like, each drawn from its own number only.

Training, validation and held-out towns are disjoint ranges of numbers.
"""

from __future__ import annotations

from edge.errors import ConfigError
from export.world.seeds import generator

TOWNS = {"training": range(200), "validation": range(200, 250), "held_out": range(300, 400)}


def town_of(seed: int) -> int:
    """The town of a drive that names none: always a training town."""
    return int(generator(seed, "town").integers(0, len(TOWNS["training"])))


def split_of(town: int) -> str:
    """training, validation or held_out.

    Raises:
        ConfigError: no such town.
    """
    for split, towns in TOWNS.items():
        if town in towns:
            return split
    raise ConfigError(f"town: expected 0..199 (training), 200..249 (validation) or 300..399 (held out), got {town}")
