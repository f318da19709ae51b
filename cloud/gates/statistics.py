"""Figures of merit as sums over segments, and how sure a difference between two bundles is.

Frames that follow each other are alike, so what counts as one observation is a segment of a few seconds. Each figure is
a function of sums over segments (right ones, wrong ones, losses ...). For a comparison the segments are drawn anew many
times, with the same draw for both bundles; the spread of the difference gives its standard error, and Student's t its
lower bound. Ref: Efron & Tibshirani, An Introduction to the Bootstrap, ch. 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
DRAWS: Final = 400


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of merit.

    Attributes:
        name: for people.
        sums: (segments, k) what is added up.
        value: (draws, k) sums -> (draws,); larger is better.
        effect: how much less than the current one is too much.
    """

    name: str
    sums: F64
    value: Callable[[F64], F64]
    effect: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one figure in one slice.

    Attributes:
        current, candidate: the figure.
        error: standard error of current - candidate.
        low: its lower bound.
        effect: that matters.
    """

    slice: str
    figure: str
    current: float
    candidate: float
    error: float
    low: float
    effect: float

    @property
    def is_worse(self) -> bool:
        """The rule: the lower bound of how much worse it is exceeds the effect that matters."""
        return self.low > self.effect

    def __str__(self) -> str:
        where = "all drives" if self.slice == "all" else self.slice
        return (
            f"{self.figure} in {where}: expected at most {self.effect:.3f} below the current {self.current:.3f}, "
            f"got {self.candidate:.3f} (at least {self.low:.3f} below)"
        )


def multiplicities(segments: int, seed: int) -> F64:
    """(1 + DRAWS, segments) how often each segment is drawn; the first row has each once."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(segments, np.full(segments, 1.0 / segments), size=DRAWS)
    return np.concatenate([np.ones((1, segments)), drawn]).astype(np.float64)


def difference(slice_name: str, current: Figure, candidate: Figure, draws: F64, alpha: float) -> Difference | None:
    """The candidate beside the current bundle; None where the slice does not have the figure.

    Args:
        draws: as from multiplicities.
        alpha: one-sided, of this comparison.
    """
    before, now = (figure.value(draws @ figure.sums) for figure in (current, candidate))
    if not np.isfinite(before[0]):
        return None
    if not np.isfinite(now[0]):  # a share of nothing: kinds of boxes, of which the candidate finds none
        now = np.where(np.isfinite(now), now, 0.0)
    apart = before - now
    known = apart[1:][np.isfinite(apart[1:])]
    error = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    low = float(apart[0]) - student(1.0 - alpha, draws.shape[1] - 1) * error
    return Difference(slice_name, current.name, float(before[0]), float(now[0]), error, low, current.effect)


def student(share: float, degrees: int) -> float:
    """Quantile of Student's t, to some percent from 7 degrees of freedom on.

    Ref: Abramowitz & Stegun 26.7.5.
    """
    z, n = NormalDist().inv_cdf(share), float(degrees)
    terms = (
        z,
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
    )
    return sum(terms)


def added(rows: NDArray[np.floating], unit: NDArray[np.int64]) -> F64:
    """(frames, k) -> (segments, k)."""
    wide = np.asarray(rows, np.float64).reshape(len(rows), -1)
    _, place = np.unique(unit, return_inverse=True)
    sums = np.zeros((int(place.max()) + 1, wide.shape[1]))
    np.add.at(sums, place, wide)
    return sums


def ratio(sums: F64) -> F64:
    """Of two columns: right, and all."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: F64 = sums[:, 0] / sums[:, 1]
    return found


def less(sums: F64) -> F64:
    """Of two columns, a loss and how many: its mean, negated."""
    return -ratio(sums)


def mean_f1(sums: F64) -> F64:
    """Of 3 columns a label (both, said, true): the mean of the labels' F1."""
    both, said, true = (sums[:, i::3] for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(true > 0, 2 * both / (said + true), np.nan)
    return _mean(f1)


def mean_iou(sums: F64) -> F64:
    """Of 3 columns a class (both, said, true): the mean of the classes' intersection over union."""
    both, said, true = (sums[:, i::3] for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(true > 0, both / (said + true - both), np.nan)
    return _mean(iou)


def negative_ece(sums: F64) -> F64:
    """Of 3 columns a bin (how many, sum of probabilities, how many held): expected calibration error, negated."""
    count, said, held = (sums[:, i::3] for i in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: F64 = -np.abs(said - held).sum(1) / count.sum(1)
    return found


def _mean(values: F64) -> F64:
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: F64 = np.where(known, values, 0.0).sum(1) / known.sum(1)
    return found
