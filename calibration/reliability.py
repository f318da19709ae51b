"""How far probabilities are from frequencies: reliability tables, expected calibration error, Brier score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """Statements whose confidence lies in one fifteenth of 0..1."""

    count: int
    confidence: float
    frequency: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Figures of a set of statements.

    Attributes:
        ece: mean distance of confidence and frequency over the bins, weighted by their counts.
        brier: mean squared error of the probabilities.
        nll: mean negative log-likelihood, nats.
        table: bins with statements in them, ascending.
    """

    statements: int
    ece: float
    brier: float
    nll: float
    table: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to what 15 bins can carry."""
        content = asdict(self)
        for name in ("ece", "brier", "nll"):
            content[name] = round(content[name], 5)
        content["table"] = [[bin.count, round(bin.confidence, 4), round(bin.frequency, 4)] for bin in self.table]
        return content


def of_statements(confidence: F64, right: NDArray[np.bool_]) -> tuple[float, tuple[Bin, ...]]:
    """ECE and table of statements that are right or wrong."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    said = np.bincount(place, confidence, BINS)
    held = np.bincount(place, right.astype(np.float64), BINS)
    used = np.flatnonzero(count)
    table = tuple(Bin(int(count[i]), float(said[i] / count[i]), float(held[i] / count[i])) for i in used)
    return float(np.abs(said - held).sum() / max(len(confidence), 1)), table


def of_labels(probabilities: F64, truth: NDArray[np.int8]) -> Reliability:
    """Of a multi-label head: each known label of each sample is a statement.

    Args:
        probabilities, truth: (n, labels); truth 0, 1 or -1 = unknown.
    """
    known = truth >= 0
    p, y = probabilities[known], truth[known] == 1
    ece, table = of_statements(p, y)
    likelihood = np.clip(np.where(y, p, 1.0 - p), 1e-12, 1.0)
    return Reliability(len(p), ece, float(np.mean((p - y) ** 2)), float(-np.log(likelihood).mean()), table)


def of_classes(probabilities: F64, truth: NDArray[np.int64]) -> Reliability:
    """Of a single-label head: each sample's most probable label is a statement.

    Args:
        probabilities: (n, labels), summing to 1.
        truth: (n,) label numbers.
    """
    row = np.arange(len(truth))
    ece, table = of_statements(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)
    wanted = np.zeros_like(probabilities)
    wanted[row, truth] = 1.0
    likelihood = np.clip(probabilities[row, truth], 1e-12, 1.0)
    brier = float(((probabilities - wanted) ** 2).sum(axis=1).mean())
    return Reliability(len(truth), ece, brier, float(-np.log(likelihood).mean()), table)
