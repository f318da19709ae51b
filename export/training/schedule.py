"""How long and how fast each stage trains."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """Optimiser steps, batch size, peak learning rate."""

    steps: int
    batch: int
    rate: float

    def rate_at(self, step: int) -> float:
        """Warm-up over a twentieth of the steps, then half a cosine down to 2 % of the peak."""
        warm = max(self.steps // 20, 1)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(self.steps - warm, 1))))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The stages, the frames of an unrolled sequence, and how often a checkpoint is written (steps)."""

    encoders: Stage
    camera: Stage  # trained on by itself
    fusion: Stage
    clips: Stage
    text: Stage
    unroll: int
    checkpoint: int


FULL = Schedule(
    encoders=Stage(2700, 48, 2e-3),
    camera=Stage(5000, 48, 1.5e-3),
    fusion=Stage(1200, 192, 2e-3),
    clips=Stage(300, 512, 1e-3),
    text=Stage(600, 192, 2e-3),
    unroll=8,
    checkpoint=200,
)
SMALL = Schedule(
    encoders=Stage(12, 16, 2e-3),
    camera=Stage(12, 16, 1.5e-3),
    fusion=Stage(16, 16, 2e-3),
    clips=Stage(8, 32, 1e-3),
    text=Stage(12, 32, 2e-3),
    unroll=4,
    checkpoint=5,
)
