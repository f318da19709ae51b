"""The ego's engine: revolutions through an automatic gearbox, orders of a four-stroke."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.world.seeds import generator
from export.world.town import Hearing
from export.world.track import STEP_S, Track

F64 = NDArray[np.float64]

RPM_PER_MPS = (470.0, 270.0, 180.0, 130.0, 98.0, 76.0)  # per gear
ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class Engine:
    """Sound of the ego's engine over the drive."""

    def __init__(self, seed: int, hearing: Hearing, ego: Track) -> None:
        rng = generator(seed, "engine")
        self._weights = np.array(hearing.firing) * rng.uniform(0.8, 1.2, len(ORDERS))
        self._weights /= np.sqrt(0.5 * (self._weights**2).sum())
        self._phases = rng.uniform(0, 2 * np.pi, len(ORDERS))
        self._level = float(rng.uniform(-36.0, -29.0))
        self.time_s = ego.times_s()
        self._idle_rpm = hearing.idle_rpm
        self.rpm = _revolutions(ego, float(rng.uniform(0.85, 1.2)), hearing.idle_rpm)
        self._turns = np.concatenate([[0.0], np.cumsum(0.5 * (self.rpm[1:] + self.rpm[:-1])) * STEP_S / 60.0])
        self._load = np.clip((ego.acceleration_mps2 + 0.2 + 0.0006 * ego.speed_mps**2) / 2.5, 0.0, 1.0)

    def sound(self, time_s: F64) -> F64:
        """Sound at drive times, full scale 1."""
        rpm = np.interp(time_s, self.time_s, self.rpm)
        base = np.interp(time_s, self.time_s, self._turns)
        load = np.interp(time_s, self.time_s, self._load)
        total = np.zeros_like(time_s)
        for order, weight, phase in zip(ORDERS, self._weights, self._phases):
            total += weight * np.sin(2 * np.pi * order * base + phase)
        level_db = self._level + 7.0 * load + 6.0 * (rpm - self._idle_rpm) / 2500.0
        return np.asarray(total * 10.0 ** (level_db / 20.0))


def _revolutions(ego: Track, gearing: float, idle_rpm: float) -> F64:
    rpm = np.empty(len(ego.s_m))
    gear, now = 0, idle_rpm
    for i, (speed, push) in enumerate(zip(ego.speed_mps.tolist(), ego.acceleration_mps2.tolist())):
        up = 2300.0 + 900.0 * max(push, 0.0)
        while gear < len(RPM_PER_MPS) - 1 and speed * RPM_PER_MPS[gear] * gearing > up:
            gear += 1
        while gear > 0 and speed * RPM_PER_MPS[gear] * gearing < 1250.0:
            gear -= 1
        goal = max(speed * RPM_PER_MPS[gear] * gearing, idle_rpm)
        now += (goal - now) * 0.25
        rpm[i] = now
    return rpm
