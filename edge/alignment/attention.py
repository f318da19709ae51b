"""Soft alignment by attention: how much each instant of one series looks at each of the other, and at which lag most.

The rows may be embeddings of one shared space (what the camera sees, what the microphone hears), or what a signal did
around each instant. Ref: Bahdanau et al., arXiv 1409.0473, eq. 6, with a softmax over the instants within reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.alignment.band import SakoeChiba
from edge.alignment.series import F64, I64, Series
from edge.errors import AlignmentError

TEMPERATURE: Final = 0.1  # of cosines


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """weights: (n, m), rows sum to 1 where anything is within reach. lags_ns: (k,); share: (k,) of weight at each."""

    weights: F64
    lags_ns: I64
    share: F64


def attend(a: Series, b: Series, reach_ns: int, step_ns: int, temperature: float = TEMPERATURE) -> Attention:
    """Attention of a to b.

    Args:
        reach_ns: instants farther apart get none.
        step_ns: between the lags of the histogram.

    Raises:
        AlignmentError: other features in b than in a.
    """
    if a.values.shape[1] != b.values.shape[1]:
        raise AlignmentError(f"series: expected as many features, got {a.values.shape[1]} and {b.values.shape[1]}")
    first, last = SakoeChiba(reach_ns).columns(a, b)
    columns = np.arange(len(b))
    within = (columns >= first[:, None]) & (columns <= last[:, None])
    cosines = _unit(a.values) @ _unit(b.values).T
    weights = np.where(within, np.exp((cosines - 1.0) / temperature), 0.0)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-12)
    bins = np.rint((b.stamps_ns - a.stamps_ns[:, None]) / step_ns).astype(np.int64) + reach_ns // step_ns
    count = 2 * (reach_ns // step_ns) + 1
    inside = within & (bins >= 0) & (bins < count)
    total = np.bincount(bins[inside], weights[inside], count)
    chances = np.maximum(np.bincount(bins[inside], minlength=count), 1)  # lags near the reach have fewer pairs
    share = total / chances
    return Attention(weights, np.arange(count) * step_ns - reach_ns // step_ns * step_ns, share / share.sum())


def around(series: Series, reach: int) -> Series:
    """What the series did from `reach` samples before to as many after each instant, as one row; ends are mirrored."""
    padded = np.pad(series.values, ((reach, reach), (0, 0)), "reflect" if len(series) > reach else "edge")
    rows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    flat = rows.reshape(len(series), -1)
    return Series(series.stamps_ns, flat - flat.mean(1, keepdims=True))


def _unit(rows: F64) -> F64:
    found: F64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
