"""Soft time warping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alignment.band import SakoeChiba
from edge.alignment.dtw import cost, warp
from edge.alignment.series import Series
from edge.alignment.soft_dtw import soft_warp
from edge.errors import AlignmentError


def pair(seed: int, n: int, m: int) -> tuple[Series, Series]:
    rng = np.random.default_rng(seed)
    return Series(np.arange(n) * m, rng.normal(size=(n, 2))), Series(np.arange(m) * n, rng.normal(size=(m, 2)))


@settings(max_examples=100)
@given(st.integers(0, 1 << 30), st.integers(1, 12), st.integers(1, 12))
def test_without_softness_it_is_time_warping(seed: int, n: int, m: int) -> None:
    a, b = pair(seed, n, m)
    found = soft_warp(a, b, 1e-4)
    assert found.cost == pytest.approx(cost(a, b, pattern="symmetric1"), abs=1e-2)
    path = warp(a, b, pattern="symmetric1").path
    expected = np.zeros((n, m))
    expected[path[:, 0], path[:, 1]] = 1.0
    assert np.abs(found.alignment - expected).max() < 0.05


@settings(max_examples=50)
@given(st.integers(0, 1 << 30), st.integers(2, 8), st.integers(2, 8), st.sampled_from([0.1, 1.0, 5.0]))
def test_alignment_is_the_derivative_of_the_cost(seed: int, n: int, m: int, gamma: float) -> None:
    a, b = pair(seed, n, m)
    found, step = soft_warp(a, b, gamma), 1e-6
    i = seed % n
    moved = a.values.copy()
    moved[i, 0] += step
    slope = (soft_warp(Series(a.stamps_ns, moved), b, gamma).cost - found.cost) / step
    expected = (found.alignment[i] * 2.0 * (a.values[i, 0] - b.values[:, 0])).sum()
    assert slope == pytest.approx(expected, abs=1e-3)


def test_outside_the_band_nothing_is_aligned() -> None:
    a, b = pair(1, 20, 20)
    found = soft_warp(a, b, 1.0, SakoeChiba(60))
    apart = np.abs(a.stamps_ns[:, None] - b.stamps_ns[None])
    assert found.alignment[apart > 60].max() == 0.0
    assert found.alignment[0, 0] == pytest.approx(1.0) and found.alignment[-1, -1] == 1.0
    assert (found.alignment >= 0.0).all() and (found.alignment <= 1.0 + 1e-9).all()


def test_softness_must_be_above_0() -> None:
    a, b = pair(1, 3, 3)
    for gamma in (0.0, -1.0, float("nan")):
        with pytest.raises(AlignmentError, match="gamma"):
            soft_warp(a, b, gamma)
