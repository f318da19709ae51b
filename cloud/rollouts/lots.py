"""Which vehicles come first, and which are held back: by lot, always the same for a seed and a vehicle's name."""

from __future__ import annotations

import functools
import hashlib
from typing import Final

_FULL: Final = float(1 << 64)


@functools.lru_cache(maxsize=1 << 18)
def lot(seed: str, purpose: str, vehicle: str) -> float:
    """A number from 0 to below 1, as good as drawn."""
    drawn = hashlib.sha256(f"{seed}\0{purpose}\0{vehicle}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") / _FULL


def turn(seed: str, vehicle: str) -> tuple[float, str]:
    """What vehicles are sorted by: who comes first."""
    return lot(seed, "turn", vehicle), vehicle


def is_held_back(seed: str, vehicle: str, share: float) -> bool:
    """Whether a vehicle is one of those that others are compared with."""
    return lot(seed, "control", vehicle) < share
