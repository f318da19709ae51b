"""The two passes of soft-DTW, compiled by numba. Tables have a border of one cell on every side."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.alignment.dtw_kernels import compiled

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@compiled
def forward(local: F64, first: I64, last: I64, gamma: float) -> F64:
    """(n + 2, m + 2) soft costs up to each cell; infinity outside the band."""
    n, m = local.shape
    total = np.full((n + 2, m + 2), np.inf)
    total[0, 0] = 0.0
    for i in range(n):
        for j in range(first[i], last[i] + 1):
            x, y, z = total[i, j], total[i, j + 1], total[i + 1, j]
            least = min(x, min(y, z))
            if least == np.inf:
                continue
            share = math.exp((least - x) / gamma) + math.exp((least - y) / gamma) + math.exp((least - z) / gamma)
            total[i + 1, j + 1] = local[i, j] + least - gamma * math.log(share)
    return total


@compiled
def backward(local: F64, total: F64, first: I64, last: I64, gamma: float) -> F64:
    """(n, m) derivative of the whole cost by each cell's own."""
    n, m = local.shape
    share = np.zeros((n + 2, m + 2))
    share[n, m] = 1.0
    for i in range(n - 1, -1, -1):
        for j in range(last[i], first[i] - 1, -1):
            if (i == n - 1 and j == m - 1) or total[i + 1, j + 1] == np.inf:
                continue
            found = 0.0
            for di, dj in ((1, 0), (0, 1), (1, 1)):
                if i + di < n and j + dj < m and total[i + 1 + di, j + 1 + dj] < np.inf:
                    before = total[i + 1 + di, j + 1 + dj] - local[i + di, j + dj]
                    found += share[i + 1 + di, j + 1 + dj] * math.exp((before - total[i + 1, j + 1]) / gamma)
            share[i + 1, j + 1] = found
    return share[1:-1, 1:-1].copy()
