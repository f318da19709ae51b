"""How much later one signal is than another: normalised cross-correlation, between the samples, and when not to say.

Both signals come onto one grid, lose what is slower than a few seconds, and are compared at every lag. A parabola
places the peak between lags. Its standard deviation is a jackknife over stretches of the drive; whether there is a peak
at all is judged against what two unrelated signals of the same colour would reach (Bartlett), over all lags tried.

Ref: Knapp, Carter, "The generalized correlation method for estimation of time delay", 1976; Bartlett, 1946.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.alignment.offset import between

F64 = NDArray[np.float64]
GRID_S: Final = 0.01
HIGH_PASS_S: Final = 3.0
MAX_LAG_S: Final = 2.0
LONGEST_GAP_S: Final = 0.5
LEAST_S: Final = 5.0  # of both signals together, without the high-pass's ends
MOST_S: Final = 43_200.0  # from the first to the last instant of both: beyond, a clock was set in between
STRETCHES: Final = 8
FALSE_ALARM: Final = 0.001
LEAST_CORRELATION: Final = 0.1  # bursts and gusts make chance a little better than Bartlett thinks
SUREST_S: Final = 0.1  # an offset with a larger standard deviation is none
RIVAL: Final = 0.9  # another peak this high leaves open which is right
# The jackknife knows nothing of what all stretches share. With these, measured on planted shifts (docs/calibration.md),
# about 95 % of errors lie within two standard deviations.
INFLATION: Final = 1.5
FLOOR_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Series:
    """One signal; stamps_s: (n,) ascending, s; values: (n,)."""

    stamps_s: F64
    values: F64


@dataclass(frozen=True, slots=True)
class Offset:
    """How much later `other` shows what `reference` showed.

    Attributes:
        offset_s, std_s: None where the drive does not tell.
        correlation: at the peak, -1..1.
        false_alarm: chance that unrelated signals would reach it at some lag.
        reason: why there is no offset; "" where there is one.
    """

    offset_s: float | None
    std_s: float | None
    correlation: float
    false_alarm: float
    reason: str = ""


def find_offset(
    reference: Series, other: Series, *, signed: bool = True, tried: int = 1, high_pass_s: float = HIGH_PASS_S
) -> Offset:
    """The offset of `other`, or why there is none.

    Args:
        reference, other: signals of one motion, in any unit.
        signed: False also takes a negative correlation, for axes whose sign is not known.
        tried: pairs of signals that this one was chosen from.
        high_pass_s: what is slower does not count.
    """
    for series in (reference, other):
        apart_s = float(np.median(np.diff(series.stamps_s))) if len(series.stamps_s) > 1 else 0.0
        if apart_s > LONGEST_GAP_S:  # each pair of samples would be a gap
            return _none(f"samples are {apart_s:.2g} s apart, expected at most {LONGEST_GAP_S:g} s")
    first, last = _shared(reference, other)
    if last - first > MOST_S / GRID_S:
        return _none(f"both span {(last - first) * GRID_S:.3g} s, expected at most {MOST_S:g} s")
    x, y = (_high_passed(series, first, last, high_pass_s) for series in (reference, other))
    if len(x) < LEAST_S / GRID_S:
        return _none(f"{len(x) * GRID_S:.1f} s of both, expected at least {LEAST_S:g} s")
    if min(x.std(), y.std()) < 1e-9:
        return _none("a signal does not change")
    lags = round(MAX_LAG_S / GRID_S)
    products, energies = _stretches(x, y, lags)
    correlation = _normalised(products, energies)
    if not signed and -correlation.min() > correlation.max():
        products, correlation = -products, -correlation
        y = -y
    peak = int(np.argmax(correlation))
    height = float(correlation[peak])
    false_alarm = _false_alarm(x, y, height, tried * (1 if signed else 2), high_pass_s)
    found = Offset(None, None, round(height, 4), false_alarm)
    if false_alarm > FALSE_ALARM or height < LEAST_CORRELATION:
        return _because(found, f"correlation {height:.2f} is what unrelated signals reach")
    if not 0 < peak < 2 * lags:
        return _because(found, f"no peak within {MAX_LAG_S:g} s")
    if _rival(correlation, peak) > RIVAL * height:
        return _because(found, "two lags fit equally well")
    offset_s = (peak - lags + between(correlation, peak)) * GRID_S
    std_s = math.hypot(INFLATION * _jackknife_s(products, energies, lags), FLOOR_S)
    if std_s > SUREST_S:
        return _because(found, f"parts of the drive disagree by {std_s:.2f} s")
    return Offset(offset_s, std_s, found.correlation, false_alarm)


def _none(reason: str) -> Offset:
    return Offset(None, None, 0.0, 1.0, reason)


def _because(found: Offset, reason: str) -> Offset:
    return Offset(None, None, found.correlation, found.false_alarm, reason)


def _shared(reference: Series, other: Series) -> tuple[int, int]:
    """The numbers of the first and the last grid point that both cover; of none the last is before the first."""
    both = reference.stamps_s, other.stamps_s
    if min(map(len, both)) < 3:
        return 0, -1
    first = max(math.ceil(stamps_s[0] / GRID_S) for stamps_s in both)
    return first, min(math.floor(stamps_s[-1] / GRID_S) for stamps_s in both)


def _high_passed(series: Series, first: int, last: int, high_pass_s: float) -> F64:
    """On the grid from a point to another, both included: the signal less its mean over high_pass_s around, 0 in gaps.

    Only where that window is whole: a filter that changed towards the ends would stay where it is when the signal
    moves, and pull every offset towards 0.
    """
    grid = GRID_S * np.arange(first, last + 1)
    width = round(high_pass_s / GRID_S) | 1
    if len(grid) <= width:
        return np.zeros(0)
    after = np.clip(np.searchsorted(series.stamps_s, grid), 1, len(series.stamps_s) - 1)
    known = series.stamps_s[after] - series.stamps_s[after - 1] <= LONGEST_GAP_S
    values = np.where(known, np.interp(grid, series.stamps_s, series.values), 0.0)
    window = np.ones(width)
    mean = np.convolve(values, window, "valid") / np.maximum(np.convolve(known, window, "valid"), 1.0)
    middle = slice(width // 2, len(grid) - width // 2)
    return np.asarray(np.where(known[middle], values[middle] - mean, 0.0), np.float64)


def _stretches(x: F64, y: F64, lags: int) -> tuple[F64, F64]:
    """Per stretch of x: (stretches, lags) products with y moved, and (stretches, 2, lags) energies of both."""
    padded = np.pad(y, lags)
    inside = np.pad(np.ones(len(y)), lags)
    products, energies = [], []
    for part in np.array_split(np.arange(len(x)), STRETCHES):
        piece = x[part]
        reach = slice(part[0], part[-1] + 2 * lags + 1)
        products.append(np.correlate(padded[reach], piece, "valid"))
        own = np.correlate(inside[reach], piece**2, "valid")
        theirs = np.correlate(padded[reach] ** 2, np.ones(len(piece)), "valid")
        energies.append([own, theirs])
    return np.asarray(products, np.float64), np.asarray(energies, np.float64)


def _normalised(products: F64, energies: F64) -> F64:
    total = energies.sum(axis=0)
    return np.asarray(products.sum(axis=0) / np.sqrt(np.maximum(total[0] * total[1], 1e-30)), np.float64)


def _jackknife_s(products: F64, energies: F64, lags: int) -> float:
    places = []
    for part in range(len(products)):
        rest = np.arange(len(products)) != part
        correlation = _normalised(products[rest], energies[rest])
        peak = int(np.clip(np.argmax(correlation), 1, 2 * lags - 1))
        places.append((peak + float(np.clip(between(correlation, peak), -1.0, 1.0))) * GRID_S)
    count = len(places)
    return math.sqrt((count - 1) / count * float(((np.array(places) - np.mean(places)) ** 2).sum()))


def _rival(correlation: F64, peak: int) -> float:
    """The highest other peak: outside the hill that the peak stands on."""
    half = 0.5 * correlation[peak]
    left = np.flatnonzero(correlation[:peak] < half)
    right = np.flatnonzero(correlation[peak:] < half)
    outside = np.concatenate(
        [correlation[: left[-1] + 1] if len(left) else [], correlation[peak + right[0] :] if len(right) else []]
    )
    return float(outside.max()) if len(outside) else -1.0


def _false_alarm(x: F64, y: F64, height: float, tried: int, high_pass_s: float) -> float:
    """Chance that independent signals with the same autocorrelations reach `height` at one of the lags."""
    reach = min(len(x) // 2, round(high_pass_s / GRID_S))
    own, theirs = _autocorrelation(x, reach), _autocorrelation(y, reach)
    variance = (1.0 + 2.0 * float((own[1:] * theirs[1:]).sum())) / len(x)
    width = max(1.0, float(np.argmax(own < 0.5)) if (own < 0.5).any() else float(reach))
    places = tried * max(2.0 * MAX_LAG_S / GRID_S / width, 1.0)
    independent = 1.0 / max(variance, 1.0 / len(x))  # samples that as many unrelated white ones would be worth
    if independent <= 4.0:
        return 1.0
    deviations = math.atanh(min(height, 1.0 - 1e-9)) * math.sqrt(independent - 3.0)  # Fisher's z
    return min(1.0, places * 0.5 * math.erfc(deviations / math.sqrt(2.0)))


def _autocorrelation(values: F64, reach: int) -> F64:
    size = 1 << (2 * len(values) - 1).bit_length()
    power = np.abs(np.fft.rfft(values, size)) ** 2
    correlation = np.fft.irfft(power, size)[: reach + 1]
    return np.asarray(correlation / max(float(correlation[0]), 1e-30), np.float64)
