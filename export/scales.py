"""Scales: one quantum of a tensor, from its histogram or its weights. Symmetric: 127 quanta reach the magnitude."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import Histogram

QUANTA = 127
LEAST, MOST = 0.7, 1.02  # share of a frozen quantum's reach that a channel's weights may fill
_TINY = np.float32(2.0**-100)
_SHARE = 0.99999
F32 = NDArray[np.float32]


def activation_scale(seen: Histogram, how: str = "minmax") -> np.float32:
    """The quantum of an activation.

    Args:
        how: minmax reaches all that was seen; percentile leaves out a hundred-thousandth of the values that are not 0;
            mse costs least squared error (figures in docs/quantisation.md).
    """
    return max(np.float32(SCALES[how](seen) / QUANTA), _TINY)


def percentile(seen: Histogram) -> float:
    """The magnitude that all but a hundred-thousandth of the values that are not 0 stay within."""
    middles, counts = seen.magnitudes()
    if not counts.any():
        return seen.magnitude
    enough = int(np.searchsorted(np.cumsum(counts), _SHARE * counts.sum()))
    return float(min(seen.magnitude, middles[enough] + 2.0 ** (seen.shift - 1)))


def least_error(seen: Histogram) -> float:
    """The magnitude at which rounding and cutting off together cost least.

    Rounding costs quantum² / 12 for each value that is neither cut off nor exactly 0.
    """
    middles, counts = seen.magnitudes()
    best, least = seen.magnitude, np.inf
    for part in np.linspace(1.0, 0.2, 81):
        limit = seen.magnitude * part
        over = middles > limit
        error = counts[~over].sum() * (limit / QUANTA) ** 2 / 12 + (counts[over] * (middles[over] - limit) ** 2).sum()
        if error < least:
            best, least = limit, error
    return float(best)


def weight_scales(weight: F32, axis: int) -> F32:
    """The quantum of each output channel, (channels,)."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales: F32 = np.maximum(np.abs(weight).max(axis=others) / np.float32(QUANTA), _TINY)
    return scales


def kept_scales(base: F32, fresh: F32) -> F32:
    """The base's quantum of each channel, where the channel's largest weight still lies in its reach.

    Up to LEAST of what it reaches half a bit is lost, and up to MOST a single weight is cut off by a few quanta.
    """
    reached = fresh / base
    kept: F32 = np.where((reached >= LEAST) & (reached <= MOST), base, fresh).astype(np.float32)
    return kept


SCALES: Final = {
    "minmax": lambda seen: seen.magnitude,
    "percentile": percentile,
    "mse": least_error,
}
