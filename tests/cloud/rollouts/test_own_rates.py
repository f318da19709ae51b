"""What is expected of a vehicle by its past: right on average, and no more than the past can tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.rollouts.own_rates import expected

PASTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.tuples(st.integers(0, 50).map(float), st.floats(0.01, 100)), max_size=20
)


@given(PASTS)
def test_what_is_expected_is_positive_and_between_the_vehicles_own_rate_and_that_of_all(
    past: dict[str, tuple[float, float]],
) -> None:
    found = expected(past)
    rate = sum(n for n, _ in past.values()) / sum(h for _, h in past.values()) if past else 0.0
    for name, times in found.items():
        n, hours = past[name]
        own = n / hours / rate
        assert times > 0.0 and min(own, 1.0) - 1e-9 <= times <= max(own, 1.0) + 1e-9


def test_vehicles_that_are_alike_or_count_nothing_have_no_rates_of_their_own() -> None:
    assert expected({}) == {} == expected({"a": (0.0, 5.0), "b": (0.0, 1.0)})
    assert expected(dict.fromkeys("abcdef", (3.0, 3.0))) == {}


def test_of_all_together_as_much_is_expected_as_they_counted_whatever_the_spread() -> None:
    past = {"a": (9.0, 2.0), "b": (1.0, 2.0), "c": (0.0, 2.0), "d": (2.0, 2.0)}
    found = expected(past)
    assert math.fsum(found.values()) == pytest.approx(4.0)
    assert found["a"] > found["d"] > found["b"] > found["c"]


@pytest.mark.parametrize("hours", [0.5, 5.0])
def test_expectations_leave_less_of_unlike_vehicles_the_longer_the_past(hours: float) -> None:
    rng = np.random.default_rng(2)
    own = rng.gamma(1.0, 1.0, 4_000)
    past = {str(n): (float(k), hours) for n, k in enumerate(rng.poisson(own * hours))}
    found = expected(past)
    weights = np.array([found[str(n)] for n in range(len(own))])
    assert np.mean(own - weights) == pytest.approx(0.0, abs=0.05)  # where the odds between arms rest on it
    assert np.var(own - weights) == pytest.approx(1.0 / (1.0 + hours), rel=0.15)
