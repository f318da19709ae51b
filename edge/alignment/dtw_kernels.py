"""Dynamic time warping on the CPU, compiled by numba: anti-diagonals for one pair, one lane a pair for batches.

Cells of an anti-diagonal do not depend on each other, so each of these loops runs on the machine's vectors. Row i of
a diagonal lies at i + 1 of its buffer; what lies beside a diagonal's cells is infinite, so a cell outside the band is
never a way in. Sums and minima are taken in one order on every machine.

    a: (d, n), b: (d, m) features, b from its last instant to its first. low, high: (n + m - 1,) rows of each diagonal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

LANES = 64
START, DIAGONAL, UP, LEFT = 0, 1, 2, 3  # where a cell's path comes from: (i-1, j-1), (i-1, j), (i, j-1)


def compiled(function: Any) -> Any:
    """Machine code at the first call, kept beside the source or in the user's cache; holds no lock while it runs."""
    return njit(cache=True, nogil=True, error_model="numpy")(function)


@compiled
def _local(cost: F64, a: F64, b: F64, absolute: bool) -> None:
    """Cost of each cell of one diagonal; a, b: (d, cells)."""
    for axis in range(a.shape[0]):
        x, y = a[axis], b[axis]
        if axis == 0 and absolute:
            for k in range(len(cost)):
                cost[k] = abs(x[k] - y[k])
        elif axis == 0:
            for k in range(len(cost)):
                cost[k] = (x[k] - y[k]) * (x[k] - y[k])
        elif absolute:
            for k in range(len(cost)):
                cost[k] += abs(x[k] - y[k])
        else:
            for k in range(len(cost)):
                cost[k] += (x[k] - y[k]) * (x[k] - y[k])


@compiled
def _step(out: F64, cost: F64, diagonal: F64, up: F64, left: F64, weight: float) -> None:
    for k in range(len(out)):
        out[k] = min(diagonal[k] + weight * cost[k], min(up[k], left[k]) + cost[k])


@compiled
def _single(
    out: F64, before: F64, last: F64, a: F64, b: F64, low: int, count: int, shift: int, weight: float, absolute: bool
) -> None:
    """`_local` and `_step` in one pass, for a single feature."""
    diagonal, up, left = before[low : low + count], last[low : low + count], last[low + 1 : low + 1 + count]
    x, y, found = a[low : low + count], b[low + shift : low + shift + count], out[low + 1 : low + 1 + count]
    if absolute:
        for k in range(count):
            local = abs(x[k] - y[k])
            found[k] = min(diagonal[k] + weight * local, min(up[k], left[k]) + local)
    else:
        for k in range(count):
            local = (x[k] - y[k]) * (x[k] - y[k])
            found[k] = min(diagonal[k] + weight * local, min(up[k], left[k]) + local)


@compiled
def _whence(code: U8, cost: F64, diagonal: F64, up: F64, left: F64, weight: float) -> None:
    """Ties go to the diagonal, then up, then left."""
    for k in range(len(code)):
        straight = diagonal[k] + weight * cost[k]
        beside = min(up[k], left[k]) + cost[k]
        code[k] = DIAGONAL if straight <= beside else (UP if up[k] <= left[k] else LEFT)


@compiled
def pair(
    a: F64, b: F64, low: I64, high: I64, absolute: bool, weight: float, open_begin: bool, open_end: bool,
    codes: U8, starts: I64,
) -> tuple[float, int]:  # fmt: skip
    """Cost of the best path, and the column at which it ends; infinity where none is inside the band.

    Args:
        weight: of a diagonal step, and of the first cell.
        codes: where each cell's path comes from, diagonal after diagonal; empty where no path is asked for.
        starts: (n + m,) where each diagonal begins in `codes`.
    """
    n, m = a.shape[1], b.shape[1]
    before = np.full(n + 2, np.inf)
    last = np.full(n + 2, np.inf)
    now = np.full(n + 2, np.inf)
    cost = np.empty(n)
    best = np.inf
    end = m - 1
    only_a, only_b = a[0], b[0]
    is_single = a.shape[0] == 1 and not codes.size
    for d in range(n + m - 1):
        lo, hi = low[d], high[d]
        count = hi - lo + 1
        shift = m - 1 - d
        if count > 0 and is_single:
            _single(now, before, last, only_a, only_b, lo, count, shift, weight, absolute)
        elif count > 0:
            _local(cost[:count], a[:, lo : lo + count], b[:, lo + shift : lo + shift + count], absolute)
            diagonal, up, left = before[lo : lo + count], last[lo : lo + count], last[lo + 1 : lo + 1 + count]
            _step(now[lo + 1 : lo + 1 + count], cost[:count], diagonal, up, left, weight)
            if codes.size:
                _whence(codes[starts[d] : starts[d] + count], cost[:count], diagonal, up, left, weight)
        if count > 0 and lo == 0 and (d == 0 or open_begin):
            _local(cost[:1], a[:, :1], b[:, shift : shift + 1], absolute)
            now[1] = weight * cost[0]
            if codes.size:
                codes[starts[d]] = START
        if count > 0 and hi == n - 1 and (open_end or d == n + m - 2) and now[n] < best:
            best, end = float(now[n]), d - (n - 1)
        now[lo] = np.inf
        now[hi + 2] = np.inf
        before, last, now = last, now, before
    return best, end


@compiled
def trace(codes: U8, starts: I64, low: I64, end_row: int, end_column: int) -> I64:
    """The path's cells (k, 2) from its begin to its end."""
    path = np.empty((end_row + end_column + 1, 2), np.int64)
    i, j, at = end_row, end_column, end_row + end_column
    while True:
        path[at, 0], path[at, 1] = i, j
        code = codes[starts[i + j] + i - low[i + j]]
        if code == START:
            return path[at:].copy()
        if code != LEFT:
            i -= 1
        if code != UP:
            j -= 1
        at -= 1


@compiled
def diagonals(first: I64, last: I64, m: int) -> tuple[I64, I64]:
    """The rows of each anti-diagonal that lie inside the columns, first and last, (n + m - 1,) each; see dtw."""
    n = len(first)
    low, high = np.empty(n + m - 1, np.int64), np.empty(n + m - 1, np.int64)
    lo, hi = 0, -1
    for d in range(n + m - 1):
        while lo < n and lo + last[lo] < d:
            lo += 1
        while hi + 1 < n and hi + 1 + first[hi + 1] <= d:
            hi += 1
        low[d], high[d] = lo, max(hi, lo - 1)
    return low, high


@compiled
def lanes(
    a: F32, b: F32, first: I64, last: I64, absolute: bool, weight: float, open_begin: bool, open_end: bool, out: F32
) -> None:
    """Costs of LANES pairs at once, row by row.

    Args:
        a: (n, d, LANES). b: (m, d, LANES). first, last: (n,) columns of each row. out: (LANES,).
    """
    n, m, features = a.shape[0], b.shape[0], a.shape[1]
    above = np.full((m + 2, LANES), np.inf, np.float32)
    row = np.full((m + 2, LANES), np.inf, np.float32)
    cost = np.empty(LANES, np.float32)
    heavy = np.float32(weight)
    for i in range(n):
        lo, hi = first[i], last[i]
        row[lo] = np.inf
        if i and features == 1 and not absolute:  # by far the commonest
            for j in range(lo, hi + 1):
                diagonal, up, left, found, x, y = above[j], above[j + 1], row[j], row[j + 1], a[i, 0], b[j, 0]
                for k in range(LANES):
                    local = (x[k] - y[k]) * (x[k] - y[k])
                    found[k] = min(diagonal[k] + heavy * local, min(up[k], left[k]) + local)
            lo = hi + 1
        for j in range(lo, hi + 1):
            for axis in range(features):
                x, y = a[i, axis], b[j, axis]
                if axis == 0 and absolute:
                    for k in range(LANES):
                        cost[k] = abs(x[k] - y[k])
                elif axis == 0:
                    for k in range(LANES):
                        cost[k] = (x[k] - y[k]) * (x[k] - y[k])
                elif absolute:
                    for k in range(LANES):
                        cost[k] += abs(x[k] - y[k])
                else:
                    for k in range(LANES):
                        cost[k] += (x[k] - y[k]) * (x[k] - y[k])
            found, diagonal, up, left = row[j + 1], above[j], above[j + 1], row[j]
            if i == 0 and (j == 0 or open_begin):
                for k in range(LANES):
                    found[k] = heavy * cost[k]
            else:
                for k in range(LANES):
                    found[k] = min(diagonal[k] + heavy * cost[k], min(up[k], left[k]) + cost[k])
        row[hi + 2 : hi + 3] = np.inf
        above, row = row, above
    out[:] = above[m]
    if open_end:
        for j in range(first[n - 1], last[n - 1] + 1):
            out[:] = np.minimum(out, above[j + 1])
