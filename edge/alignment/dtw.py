"""Dynamic time warping between series of different rates: how one runs along the other, in real time.

    warp    one pair, in double precision: cost, path with instants, cost of each point
    costs   many pairs of one shape, in single precision: costs alone

Step patterns: "symmetric2" counts a diagonal step twice, so every path through (n, m) weighs n + m and costs of
different lengths compare; "symmetric1" counts each step once, and no number makes its costs comparable.

Ref: Sakoe, Chiba, "Dynamic programming algorithm optimization for spoken word recognition", IEEE TASSP 26(1), 1978.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge.alignment.band import Band, Columns, columns_of
from edge.alignment.series import F64, I64, Series
from edge.errors import AlignmentError

Metric = Literal["squared", "absolute"]
Pattern = Literal["symmetric1", "symmetric2"]
WEIGHTS: Final = {"symmetric1": 1.0, "symmetric2": 2.0}  # of a diagonal step, and of the first cell
MAX_CELLS: Final = 1 << 28  # of a path's directions, one byte each


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """How b runs along a.

    Attributes:
        cost: of the best path.
        mean_cost: cost a unit of the path's weight, comparable between lengths; None for "symmetric1".
        path: (k, 2) int64 indices into a and b, ascending.
        stamps_ns: (k, 2) int64 their instants.
        scores: (k,) the local cost of each point, 0 where both say the same.
    """

    cost: float
    mean_cost: float | None
    path: I64
    stamps_ns: I64
    scores: F64

    @property
    def lags_ns(self) -> I64:
        """(k,) how much later b shows what a showed."""
        return self.stamps_ns[:, 1] - self.stamps_ns[:, 0]


def warp(
    a: Series, b: Series, band: Band | None = None, *, metric: Metric = "squared", pattern: Pattern = "symmetric2",
    open_begin: bool = False, open_end: bool = False,
) -> Warp:  # fmt: skip
    """The best path.

    Args:
        band: instants that may be the same event; all where None.
        open_begin, open_end: b may begin before, and end after, what a shows.

    Raises:
        AlignmentError: other features in b than in a, no path inside the band, or more cells than memory should hold.
    """
    from edge.alignment import dtw_kernels  # numba takes half a second to import

    columns = _checked(a, b, band, open_begin, open_end)
    low, high = dtw_kernels.diagonals(*columns, len(b))
    starts = np.concatenate([[0], np.cumsum(high - low + 1)])
    if starts[-1] > MAX_CELLS:
        raise AlignmentError(f"path: expected at most {MAX_CELLS} cells, got {starts[-1]}: set a band")
    codes = np.zeros(starts[-1], np.uint8)
    cost, end = dtw_kernels.pair(
        *_sides(a, b), low, high, metric == "absolute", WEIGHTS[pattern], open_begin, open_end, codes, starts
    )
    path = dtw_kernels.trace(codes, starts, low, len(a) - 1, end)
    apart = a.values[path[:, 0]] - b.values[path[:, 1]]
    scores = np.abs(apart).sum(1) if metric == "absolute" else np.square(apart).sum(1)
    weight = len(a) + int(end - path[0, 1]) + 1
    mean_cost = cost / weight if pattern == "symmetric2" else None
    stamps_ns = np.stack([a.stamps_ns[path[:, 0]], b.stamps_ns[path[:, 1]]], 1)
    return Warp(float(cost), mean_cost, path, stamps_ns, scores)


def cost(
    a: Series, b: Series, band: Band | None = None, *, metric: Metric = "squared", pattern: Pattern = "symmetric2",
    open_begin: bool = False, open_end: bool = False,
) -> float:  # fmt: skip
    """The best path's cost alone: a fifth of the time, and no memory to speak of. Arguments as of `warp`."""
    from edge.alignment import dtw_kernels

    columns = _checked(a, b, band, open_begin, open_end)
    none = np.empty(0, np.uint8), np.empty(0, np.int64)
    found, _ = dtw_kernels.pair(
        *_sides(a, b),
        *dtw_kernels.diagonals(*columns, len(b)),
        metric == "absolute",
        WEIGHTS[pattern],
        open_begin,
        open_end,
        *none,
    )
    return float(found)


def costs(
    a: NDArray[np.float32], b: NDArray[np.float32], columns: Columns | None = None, *, metric: Metric = "squared",
    pattern: Pattern = "symmetric2", open_begin: bool = False, open_end: bool = False,
) -> NDArray[np.float32]:  # fmt: skip
    """Costs of many pairs at once, a machine's vector lane for each.

    Args:
        a: (pairs, n, d). b: (pairs, m, d).
        columns: of a band, for all pairs.

    Returns:
        (pairs,); infinity where no path lies inside the columns.

    Raises:
        AlignmentError: shapes that do not fit, or values that are not finite.
    """
    from edge.alignment import dtw_kernels

    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b) or a.shape[2] != b.shape[2] or 0 in a.shape[1:] + b.shape[1:]:
        raise AlignmentError(f"pairs: expected (pairs, n, d) and (pairs, m, d), got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise AlignmentError("pairs: expected finite values, got some that are not")
    pairs, n, m = len(a), a.shape[1], b.shape[1]
    columns = columns or Columns(np.zeros(n, np.int64), np.full(n, m - 1))
    first, last = _fitting(columns, n, m)
    out = np.empty(pairs, np.float32)
    lanes = dtw_kernels.LANES
    for start in range(0, pairs, lanes):
        some = slice(start, min(start + lanes, pairs))
        found = np.empty(lanes, np.float32)
        dtw_kernels.lanes(
            _laned(a[some], lanes), _laned(b[some], lanes), first, last,
            metric == "absolute", WEIGHTS[pattern], open_begin, open_end, found,
        )  # fmt: skip
        out[some] = found[: some.stop - start]
    return out


def _checked(a: Series, b: Series, band: Band | None, open_begin: bool, open_end: bool) -> Columns:
    if a.values.shape[1] != b.values.shape[1]:
        raise AlignmentError(f"series: expected as many features, got {a.values.shape[1]} and {b.values.shape[1]}")
    return columns_of(band, a, b, open_begin, open_end)


def _fitting(columns: Columns, n: int, m: int) -> Columns:
    first, last = (np.asarray(side, np.int64) for side in columns)
    ascending = len(first) == len(last) == n and (np.diff(first) >= 0).all() and (np.diff(last) >= 0).all()
    if not ascending or first.min() < 0 or last.max() >= m or (last < first).any():
        raise AlignmentError(f"columns: expected {n} ascending ranges within 0..{m - 1}, got {columns}")
    return Columns(first, last)


def _sides(a: Series, b: Series) -> tuple[F64, F64]:
    """(d, n) and (d, m), the second from its end: so an anti-diagonal is one run of each."""
    return np.ascontiguousarray(a.values.T), np.ascontiguousarray(b.values[::-1].T)


def _laned(pairs: NDArray[np.float32], lanes: int) -> NDArray[np.float32]:
    """(pairs, n, d) as (n, d, lanes), the rest of the lanes 0."""
    laned = np.zeros((*pairs.shape[1:], lanes), np.float32)
    laned[..., : len(pairs)] = np.moveaxis(pairs, 0, 2)
    return laned
