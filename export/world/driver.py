"""How a driver follows a lane: intelligent driver model along it, critically damped across it.

Ref: Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and microscopic simulations", 2000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from export.world.track import STEP_S, Track

COMFORT_BRAKE_MPS2 = 2.5
HARDEST_BRAKE_MPS2 = 7.5
JERK_MPS3 = 12.0
HEADWAY_S = 1.3
STANDSTILL_GAP_M = 2.5
LATERAL_RATE_RADPS = 1.3

SIZES_M: dict[str, tuple[float, float, float]] = {
    "car": (4.4, 1.8, 1.48),
    "van": (5.4, 2.0, 2.4),
    "truck": (11.0, 2.5, 3.6),
    "bus": (11.5, 2.5, 3.1),
    "emergency": (5.6, 2.05, 2.6),
}


@dataclass(slots=True)
class Driver:
    """A vehicle while the journey is being worked out; `along` is the station counted in its own direction."""

    id: int
    variant: str
    direction: int
    lane: float
    along_m: float
    offset_m: float
    speed_mps: float
    desired_mps: float
    look: int
    size_m: tuple[float, float, float]
    first_step: int
    acceleration_mps2: float = 0.0
    drift_mps: float = 0.0
    brake_until_s: float = -1.0
    history: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    @property
    def s_m(self) -> float:
        return self.direction * self.along_m

    def follow(self, limit_mps: float, gap_m: float, leader_mps: float) -> float:
        """Wanted acceleration, m/s2, behind a leader (gap bumper to bumper; inf for a free road)."""
        limit = max(limit_mps, 0.5)
        free = 1.6 * (1.0 - (self.speed_mps / limit) ** 4)
        if free < -COMFORT_BRAKE_MPS2:
            free = -COMFORT_BRAKE_MPS2
        if math.isinf(gap_m):
            return free
        closing = self.speed_mps - leader_mps
        wanted = STANDSTILL_GAP_M + max(
            0.0, self.speed_mps * HEADWAY_S + self.speed_mps * closing / (2.0 * math.sqrt(1.6 * COMFORT_BRAKE_MPS2))
        )
        return min(free, free - 1.6 * (wanted / max(gap_m, 0.3)) ** 2)

    def advance(self, wanted_mps2: float, offset_m: float) -> None:
        """One step: limited jerk along, damped motion across towards `offset_m`."""
        wanted = min(max(wanted_mps2, -HARDEST_BRAKE_MPS2), 2.5)
        change = JERK_MPS3 * STEP_S
        before = self.acceleration_mps2
        self.acceleration_mps2 += min(max(wanted - before, -change), change)
        speed = self.speed_mps + 0.5 * (before + self.acceleration_mps2) * STEP_S
        if speed < 0.05 and wanted <= 0.0:
            speed, self.acceleration_mps2 = 0.0, 0.0
        self.along_m += 0.5 * (self.speed_mps + speed) * STEP_S
        self.speed_mps = max(speed, 0.0)
        pull = LATERAL_RATE_RADPS**2 * (offset_m - self.offset_m) - 2.0 * LATERAL_RATE_RADPS * self.drift_mps
        pull *= min(1.0, self.speed_mps / 4.0)
        self.drift_mps = (self.drift_mps + pull * STEP_S) * (1.0 if self.speed_mps > 0.5 else 0.5)
        self.offset_m += self.drift_mps * STEP_S

    def remember(self) -> None:
        """Adds the present state to the history."""
        lean = math.atan2(self.drift_mps, max(self.speed_mps, 3.0))
        heading = lean if self.direction > 0 else math.pi + lean * -1.0
        self.history.append((self.s_m, self.offset_m, self.speed_mps, heading, self.acceleration_mps2))

    def track(self) -> Track:
        """The finished track."""
        rows = np.array(self.history)
        return Track(
            self.id, "vehicle", self.variant, self.first_step,
            rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 2].copy(), rows[:, 3].copy(), rows[:, 4].copy(),
            self.size_m, self.look,
        )  # fmt: skip
