"""Histograms: exact merging in any order, and what they refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration.histogram import SIDE, Histogram
from edge.errors import ConfigError

VALUES = arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)
)


@given(st.lists(VALUES, min_size=2, max_size=4))
@example([np.array([2.0**38], np.float32), np.array([-(2.0**-120)], np.float32)])
def test_merging_in_any_order_equals_counting_all_at_once(parts: list[np.ndarray]) -> None:
    whole = Histogram.of(np.concatenate(parts))
    for order in itertools.permutations(parts):
        merged = Histogram.of(order[0])
        for part in order[1:]:
            merged = merged.merged(Histogram.of(part))
        assert merged == whole
        merged.check("x")


@given(VALUES)
def test_every_element_is_counted_once(values: np.ndarray) -> None:
    seen = Histogram.of(values)
    assert seen.zeros + sum(seen.counts) == values.size
    assert seen.zeros == int((values == 0).sum())
    assert seen.first >= -SIDE
    assert seen.first + len(seen.counts) <= SIDE


@given(VALUES)
def test_magnitudes_lie_within_a_bin_of_the_values(values: np.ndarray) -> None:
    middles, counts = (seen := Histogram.of(values)).magnitudes()
    given = np.sort(np.abs(values[values != 0]).astype(np.float64))
    kept = np.repeat(middles, counts)
    assert len(kept) == len(given)
    np.testing.assert_allclose(kept, given, atol=2.0**seen.shift, rtol=0)


def test_the_sign_of_zero_does_not_show() -> None:
    assert str(Histogram.of(np.array([-0.0], np.float32))) == str(Histogram.of(np.array([0.0], np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match="finite"):
        Histogram.of(np.array([1.0, bad], np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        Histogram(-1.0, 1.0, 0, -3, 0, (1,)),  # too wide a bin
        Histogram(-1.0, 1.0, 0, -8, SIDE, (1,)),  # beyond the last bin
        Histogram(-1.0, 1.0, 0, -8, 0, (-1,)),
        Histogram(2.0, 1.0, 0, -8, 0, (1,)),
        Histogram(float("nan"), 1.0, 0, -8, 0, (1,)),
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(wrong: Histogram) -> None:
    with pytest.raises(ConfigError, match="ranges: x"):
        wrong.check("x")
