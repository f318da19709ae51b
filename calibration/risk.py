"""Thresholds with a finite-sample guarantee: conformal risk control over exchangeable units.

A unit is what repeats independently: a drive, a stretch of one, or a single sample. Frames of one drive resemble each
other, so a guarantee that counted them as independent would be worth nothing; here each unit weighs the same, whatever
its length, and the promise is for a sample of a *new* unit.

Ref: Angelopoulos et al., "Conformal Risk Control", ICLR 2024; Lee, Barber, Willett, "Distribution-free inference with
hierarchical data", 2023. Units of one sample give the common split-conformal quantile.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_ROUNDING: Final = 1e-12


def units_needed(alpha: float) -> int:
    """The fewest units that can promise a risk of at most `alpha`."""
    return math.ceil(1.0 / alpha - _ROUNDING) - 1


def controlled_threshold(scores: F64, weights: F64, units: int, alpha: float) -> float | None:
    """The highest threshold whose risk on a new unit is at most `alpha`, in expectation.

    The loss of a unit at threshold t is the weight of its scores below t.

    Args:
        scores: (n,) probability of something that must not be missed.
        weights: (n,) share of its unit's loss that missing it means; at most 1 in sum over a unit.
        units: how many there are, those without any score included.
        alpha: 0..1.

    Returns:
        the threshold: what scores at least this much is kept; None where the units are too few for the promise.
    """
    budget = alpha * (units + 1) - 1.0 + _ROUNDING  # of the summed loss; the new unit may lose everything
    if budget < 0.0:
        return None
    order = np.argsort(scores, kind="stable")
    beyond = np.flatnonzero(np.cumsum(weights[order]) > budget)
    return 1.0 if len(beyond) == 0 else float(scores[order[beyond[0]]])


def unit_weights(units: NDArray[np.int64]) -> tuple[F64, int]:
    """(n,) weights by which the samples of each unit sum to 1, and the number of units."""
    _, place, counts = np.unique(units, return_inverse=True, return_counts=True)
    return 1.0 / counts[place].astype(np.float64), len(counts)
