"""Sirens and horns as phases over emission time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

TABLE_HZ = 4000
SIREN_OVERTONES = (1.0, 0.55, 0.38, 0.22, 0.14, 0.08)
HORN_OVERTONES = (0.8, 1.0, 0.7, 0.5, 0.35, 0.25, 0.16)
SIREN_DBFS_10M, HORN_DBFS_10M = -13.0, -16.0


class SirenTone:
    """One siren: a periodic sweep of its fundamental."""

    def __init__(self, kind: str, look: int, pitch: float = 1.0, pace: float = 1.0) -> None:
        rng = np.random.Generator(np.random.PCG64(look))
        usual_s = {"wail": (3.2, 5.0), "yelp": (0.28, 0.4), "hi_lo": (0.9, 1.5), "whoop": (0.8, 1.2)}[kind]
        self.period_s = float(rng.uniform(*usual_s)) / pace
        u = np.arange(round(self.period_s * TABLE_HZ)) / round(self.period_s * TABLE_HZ)
        low, high = pitch * float(rng.uniform(520.0, 700.0)), pitch * float(rng.uniform(1250.0, 1550.0))
        if kind == "hi_lo":
            low = pitch * float(rng.uniform(410.0, 480.0))
            self.frequency_hz = low * np.where(u < 0.5, 1.0, 4.0 / 3.0)
        else:
            rise = {"wail": 0.6, "yelp": 0.5, "whoop": 0.96}[kind]
            shape = np.where(u < rise, u / rise, 1.0 - (u - rise) / (1.0 - rise))
            self.frequency_hz = low * (high / low) ** (0.5 - 0.5 * np.cos(np.pi * shape))
        cycles = np.cumsum(self.frequency_hz) / TABLE_HZ
        whole = max(round(float(cycles[-1])), 1)  # a whole number of cycles, so that sweeps join
        self.frequency_hz = self.frequency_hz * (whole / cycles[-1])
        self._table = np.concatenate([[0.0], cycles * (whole / cycles[-1])])
        self._whole = whole

    def sound(self, emitted_s: F64) -> F64:
        """Unit-power sound at emission times."""
        rest = np.mod(emitted_s / self.period_s, 1.0)
        cycles = np.interp(rest * (len(self._table) - 1), np.arange(len(self._table)), self._table)
        return _overtones(2 * np.pi * cycles, SIREN_OVERTONES)


def horn(emitted_s: F64, look: int, low_hz: float = 400.0, ratio: float = 1.24) -> F64:
    """Two steady tones, unit power."""
    rng = np.random.Generator(np.random.PCG64(look))
    low = low_hz * float(rng.uniform(0.93, 1.07))
    both = _overtones(2 * np.pi * low * emitted_s, HORN_OVERTONES)
    return np.asarray((both + _overtones(2 * np.pi * ratio * low * emitted_s, HORN_OVERTONES)) / np.sqrt(2.0))


def _overtones(phase: F64, weights: tuple[float, ...]) -> F64:
    total = np.zeros_like(phase)
    for n, weight in enumerate(weights, start=1):
        total += weight * np.sin(n * phase)
    return np.asarray(total / np.sqrt(0.5 * sum(w * w for w in weights)))
