"""Time warping with a soft minimum: smooth in its inputs, and with how likely each pair of instants belongs together.

Each cell costs its own plus the soft minimum of the three before it, each step counted once; as gamma goes to 0 this is
dtw.cost with pattern "symmetric1". The alignment is the cost's derivative by each cell's own cost: the share of paths,
weighted by how good they are, that run through it.

Ref: Cuturi, Blondel, "Soft-DTW: a differentiable loss function for time-series", arXiv 1703.01541, algorithms 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.alignment.band import Band, columns_of
from edge.alignment.dtw import MAX_CELLS, Metric
from edge.alignment.series import F64, Series
from edge.errors import AlignmentError


@dataclass(frozen=True, slots=True, eq=False)
class SoftWarp:
    """cost: soft minimum over all paths, below the best path's own. alignment: (n, m) 0..1, 0 outside the band."""

    cost: float
    alignment: F64


def soft_warp(a: Series, b: Series, gamma: float, band: Band | None = None, *, metric: Metric = "squared") -> SoftWarp:
    """All paths at once.

    Args:
        gamma: softness, in units of cost; above 0.

    Raises:
        AlignmentError: as of dtw.warp; gamma not above 0.
    """
    from edge.alignment import soft_dtw_kernels  # numba takes half a second to import

    if not gamma > 0.0:
        raise AlignmentError(f"gamma: expected above 0, got {gamma}")
    if a.values.shape[1] != b.values.shape[1]:
        raise AlignmentError(f"series: expected as many features, got {a.values.shape[1]} and {b.values.shape[1]}")
    if len(a) * len(b) * 8 > MAX_CELLS:
        raise AlignmentError(f"alignment: expected at most {MAX_CELLS // 8} cells, got {len(a) * len(b)}")
    first, last = columns_of(band, a, b, False, False)
    local = local_costs(a.values, b.values, metric)
    total = soft_dtw_kernels.forward(local, first, last, gamma)
    alignment = soft_dtw_kernels.backward(local, total, first, last, gamma)
    return SoftWarp(float(total[-2, -2]), alignment)


def local_costs(a: F64, b: F64, metric: Metric) -> F64:
    """(n, m) cost of each pair of instants."""
    if metric == "absolute":
        return np.asarray(np.abs(a[:, None] - b[None]).sum(2), np.float64)
    return np.asarray(np.square(a[:, None] - b[None]).sum(2), np.float64)
