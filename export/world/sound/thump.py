"""The thump of a wheel that hits something: the body's boom, the tyre's ring and a click, all from one instant on."""

from __future__ import annotations

import numpy as np

from export.world.bumps import HARDEST_M, Blow
from export.world.seeds import generator
from export.world.sound.noise import F64

THUMP_S = 0.18
PEAK = 0.45  # of the hardest, full scale 1
CLICK = {"joint": 0.5, "cover": 0.65, "hole": 0.3}  # an edge of steel is the sharpest


def thump(seed: int, number: int, blow: Blow, rate_hz: int) -> F64:
    """The sound of one blow, from the instant at which the axle hits; `number` counts the drive's blows."""
    rng = generator(seed, "thump", number)
    t = np.arange(int(THUMP_S * rate_hz)) / rate_hz
    boom_hz = float(rng.uniform(52.0, 66.0)) * (1.0 if blow.is_front else 1.15)
    boom = np.sin(2 * np.pi * boom_hz * t) * np.exp(-t / 0.032)
    slap = 0.6 * np.sin(2 * np.pi * float(rng.uniform(105.0, 150.0)) * t) * np.exp(-t / 0.016)
    ring = 0.2 * np.sin(2 * np.pi * float(rng.uniform(205.0, 235.0)) * t) * np.exp(-t / 0.03)
    click = np.diff(rng.normal(0.0, 0.35, len(t) + 1)) * np.exp(-t / 0.004) * CLICK[blow.bump.kind]
    wave = boom + slap + ring + click
    return np.asarray(wave * (PEAK * blow.lift_m / HARDEST_M / np.abs(wave).max()))
