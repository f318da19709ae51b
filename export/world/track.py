"""Motion of one actor along the road, on the journey's fixed grid of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.05

INTENTS = ("walks", "waits", "will_cross", "crosses")
WILL_CROSS_S = 2.5  # how long before stepping onto the road the intent is told


@dataclass(frozen=True, slots=True)
class Track:
    """One vehicle or pedestrian.

    first_step: step of the first entry of the arrays. s_m, d_m: station and offset of its middle. speed_mps: along its
    own way, >= 0. heading_rad: relative to the road's reference line. intent: index into INTENTS (pedestrians only).
    size_m: length, width, height. look: seeds its appearance.
    """

    id: int
    kind: str
    variant: str
    first_step: int
    s_m: NDArray[np.float64]
    d_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    acceleration_mps2: NDArray[np.float64]
    size_m: tuple[float, float, float]
    look: int
    intent: NDArray[np.int8] | None = None

    @property
    def start_s(self) -> float:
        return self.first_step * STEP_S

    @property
    def end_s(self) -> float:
        return (self.first_step + len(self.s_m) - 1) * STEP_S

    def alive(self, time_s: float) -> bool:
        return self.start_s <= time_s <= self.end_s

    def index(self, time_s: float) -> tuple[int, float]:
        """Entry before an instant and the fraction towards the next."""
        at = min(max(time_s / STEP_S - self.first_step, 0.0), len(self.s_m) - 1.000001)
        i = max(int(at), 0)
        return i, at - i

    def sample(self, values: NDArray[np.float64], time_s: float) -> float:
        """One of the arrays at an instant, linear between steps."""
        if len(values) == 1:
            return float(values[0])
        i, f = self.index(time_s)
        return float(values[i] * (1.0 - f) + values[i + 1] * f)

    def times_s(self) -> NDArray[np.float64]:
        """Instants of the entries."""
        return np.asarray((self.first_step + np.arange(len(self.s_m))) * STEP_S, dtype=np.float64)
