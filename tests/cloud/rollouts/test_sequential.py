"""E-processes: under the null they are not expected to grow, however one looks; under what they bet on they do."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.rollouts import policy, sequential
from cloud.rollouts.comparison import Comparison, Exposure, Taking, phi_of_arm, phi_of_arms, phi_of_pairs
from cloud.rollouts.editions import EDITIONS

HOURS = st.floats(0.01, 1e4)


def _binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@given(st.integers(1, 30), HOURS, HOURS, st.floats(1, 3), st.floats(0.05, 1), st.sampled_from(sequential.WORSE))
def test_two_arms_are_not_expected_to_grow_where_the_ratio_is_below_the_edge(
    n: int, treated_h: float, control_h: float, edge: float, below: float, times: float
) -> None:
    ratio = edge * below
    p = ratio * treated_h / (ratio * treated_h + control_h)
    grown = [math.exp(sequential.two_arm(k, treated_h, n - k, control_h, edge, times)) for k in range(n + 1)]
    expected = sum(_binomial(n, k, p) * one for k, one in enumerate(grown))
    assert expected <= 1 + 1e-9
    if below == 1:
        assert expected == pytest.approx(1)


@given(st.integers(1, 30), HOURS, HOURS, st.floats(1.1, 3), st.floats(1, 5), st.sampled_from(sequential.FINE))
def test_two_arms_are_not_expected_to_speak_for_a_ratio_above_the_margin(
    n: int, treated_h: float, control_h: float, margin: float, above: float, times: float
) -> None:
    ratio = margin * above
    p = ratio * treated_h / (ratio * treated_h + control_h)
    grown = [math.exp(sequential.two_arm(k, treated_h, n - k, control_h, margin, times)) for k in range(n + 1)]
    assert sum(_binomial(n, k, p) * one for k, one in enumerate(grown)) <= 1 + 1e-9


@given(st.floats(0.01, 5), st.floats(0.1, 3), st.floats(1, 4), st.sampled_from(sequential.RARE))
def test_one_arm_is_not_expected_to_speak_for_a_rate_above_the_tolerable(
    hours: float, rate: float, above: float, times: float
) -> None:
    mean = rate * above * hours
    expected = sum(
        math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1) + sequential.one_arm(k, hours, rate, times))
        for k in range(200)
    )
    assert expected <= 1 + 1e-9


@given(st.integers(1, 30), st.floats(0.01, 0.9), st.floats(0, 1), st.sampled_from(sequential.FAILING))
def test_a_share_is_not_expected_to_grow_below_what_may_fail(n: int, null: float, below: float, times: float) -> None:
    expected = sum(_binomial(n, k, null * below) * math.exp(sequential.share(k, n, null, times)) for k in range(n + 1))
    assert expected <= 1 + 1e-9


def test_an_interval_may_be_split_where_exposures_keep_their_parts() -> None:
    whole = sequential.two_arm(7, 3.0, 5, 9.0, 1.25, 1.6)
    parts = sequential.two_arm(4, 1.0, 1, 3.0, 1.25, 1.6) + sequential.two_arm(3, 2.0, 4, 6.0, 1.25, 1.6)
    assert whole == pytest.approx(parts)


def test_a_mixture_survives_huge_evidence() -> None:
    assert math.isfinite(sequential.mixed([1e9, -1e9]))


def test_a_mixture_may_weigh_its_alternatives_and_is_no_more_than_the_largest() -> None:
    logs = [math.log(2.0), math.log(8.0)]
    assert sequential.mixed(logs) == pytest.approx(5.0)
    assert sequential.mixed(logs, weights=(3.0, 1.0)) == pytest.approx(3.5)
    assert sequential.mixed(logs, weights=(0.0, 1.0)) == pytest.approx(8.0)


@given(st.integers(1, 30), HOURS, HOURS, st.floats(1, 3), st.floats(0.05, 1), st.sampled_from(sorted(EDITIONS)))
def test_mixtures_of_all_editions_are_not_expected_to_grow_below_the_edge(
    n: int, treated_h: float, control_h: float, edge: float, below: float, edition: int
) -> None:
    p = edge * below * treated_h / (edge * below * treated_h + control_h)
    tests = policy.Tests(effect=edge, edition=edition)
    expected = sum(
        _binomial(n, k, p)
        * Comparison().compared(k, treated_h, n - k, control_h, tests).against(1.0, EDITIONS[edition].worse)
        for k in range(n + 1)
    )
    assert expected <= 1 + 1e-9


def test_a_comparison_learns_nothing_where_there_is_nothing_to_compare_with() -> None:
    tests, fresh = policy.Tests(), Comparison()
    assert fresh.compared(5, 1.0, 0, 0.0, tests) is fresh
    assert fresh.compared(0, 1.0, 0, 1.0, tests) is fresh
    assert fresh.compared(5, 1.0, 5, 1.0, tests).stop != fresh.stop


def test_a_worse_release_is_told_from_an_equal_one() -> None:
    tests = policy.Tests()
    worse, equal = Comparison(), Comparison()
    for _ in range(60):
        worse = worse.compared(20, 10.0, 10, 10.0, tests).counted(20, 10.0, 10, tests)
        equal = equal.compared(10, 10.0, 10, 10.0, tests).counted(10, 10.0, 10, tests)
    assert worse.against(1.0) > 1e3 > 1 > equal.against(1.0)
    assert equal.fine_for_it(1.0) > 1e3 > 1 > worse.fine_for_it(1.0)
    assert worse.against(1e6) == pytest.approx(1.0, rel=1e-3)  # nothing is left where counts mean nothing


def test_no_events_at_all_speak_for_the_release_by_their_rate() -> None:
    tests, one = policy.Tests(), Comparison()
    for _ in range(100):
        one = one.compared(0, 1.0, 0, 10.0, tests).counted(0, 1.0, 0, tests)
    assert one.rare_for_it(1.0) > 100 and one.against(1.0) == 1.0


def test_vehicles_that_fail_to_take_it_count_once_each() -> None:
    good, bad = Taking().grown(100, 3, 0.05), Taking().grown(6, 5, 0.05)
    assert good.against() < 1 < 1e4 < bad.against()
    assert Taking().grown(50, 50, 0.98).against() == pytest.approx(1.0)  # where all fall silent, it is not the release


def _arm(counts: list[float], hours: list[float]) -> tuple[tuple[float, float, float], Exposure]:
    exposure = Exposure()
    for one in hours:
        exposure = exposure.grown(0.0, one)
    n, h = np.array(counts), np.array(hours)
    return (float(n.sum()), float((n**2).sum()), float((n * h).sum())), exposure


def test_phi_is_near_1_for_poisson_and_grows_where_vehicles_are_unlike() -> None:
    rng = np.random.default_rng(3)
    hours = rng.uniform(5, 15, 2_000)
    alike, unlike = rng.poisson(hours), rng.poisson(hours * rng.gamma(1, 1, 2_000))
    near = phi_of_arm(*_arm(list(alike), list(hours))[0], _arm(list(alike), list(hours))[1])
    far = phi_of_arm(*_arm(list(unlike), list(hours))[0], _arm(list(unlike), list(hours))[1])
    assert 1.0 <= near < 1.3
    assert 9 < far < 15  # 1 + mean of h^2 / mean of h: about 11.8


def test_what_one_vehicle_says_is_worth_one_vehicle() -> None:
    sums, exposure = _arm([50.0], [10.0])
    assert phi_of_arm(*sums, exposure) >= 50
    quiet, many = _arm([1.0] * 1_000, [10.0] * 1_000)
    assert phi_of_arms(sums, exposure, quiet, many) > 40
    assert phi_of_pairs(50, 50, 2_500.0, 2_500.0, 2_500.0, 1) > 20


def test_expectations_that_are_wrong_stop_no_release() -> None:
    """Vehicles are alike, but their past said otherwise; where lots gave ten quiet ones to the release it looks bad."""
    rng, worlds, tests = np.random.default_rng(12), 400, policy.Tests()
    expected = rng.gamma(0.5, 2.0, (worlds, 100)) + 0.02
    n, logs, peak, bare = np.zeros((worlds, 100)), [np.zeros(worlds) for _ in sequential.WORSE], 0.0, 0.0
    arms = slice(0, 10), slice(10, 100)
    for hour in range(1, 41):
        counts = rng.poisson(1.0, (worlds, 100))
        n += counts
        a, b, a_h, b_h = (what[:, arm].sum(1) for what in (counts, expected) for arm in arms)
        logs = [
            one + sequential.two_arm(a, a_h, b, b_h, tests.effect, k, np.log) for one, k in zip(logs, sequential.WORSE)
        ]
        sums = []
        for arm in arms:
            part, h = n[:, arm], expected[:, arm] * hour
            exposure = SimpleNamespace(vehicles=h.shape[1], hours=h.sum(1), squares=(h**2).sum(1))
            sums.append(((part.sum(1), (part**2).sum(1), (part * h).sum(1)), exposure))
        phi = phi_of_arms(*sums[0], *sums[1], np.maximum, (10.0 * hour**2, 90.0 * hour**2))
        peak = np.maximum(peak, sequential.mixed(logs, phi, np.exp, np.minimum))
        bare = np.maximum(bare, sequential.mixed(logs, 1.0, np.exp, np.minimum))
    assert (peak >= 1e3).sum() == 0
    assert (bare >= 1e3).mean() > 0.2


def test_phi_takes_arrays_of_worlds_as_it_takes_numbers() -> None:
    rng = np.random.default_rng(5)
    n = rng.poisson(3.0, (4, 2, 30)).astype(float)
    h = rng.uniform(1, 4, (4, 2, 30))
    sums = [(n[:, arm].sum(1), (n[:, arm] ** 2).sum(1), (n[:, arm] * h[:, arm]).sum(1)) for arm in (0, 1)]
    of = [
        SimpleNamespace(vehicles=np.full(4, 30), hours=h[:, arm].sum(1), squares=(h[:, arm] ** 2).sum(1))
        for arm in (0, 1)
    ]
    many = phi_of_arms(sums[0], of[0], sums[1], of[1], np.maximum)
    for world in range(4):
        (one, exposed), (two, others) = (_arm(list(n[world, arm]), list(h[world, arm])) for arm in (0, 1))
        assert many[world] == pytest.approx(phi_of_arms(one, exposed, two, others))


def test_false_stops_of_unlike_vehicles_stay_within_alpha() -> None:
    """Ten vehicles with rates of their own against ninety; without phi one in ten would be stopped."""
    rng, worlds, tests = np.random.default_rng(11), 400, policy.Tests()
    own = rng.gamma(1, 1, (worlds, 100))
    n = np.zeros((worlds, 100))
    logs = [np.zeros(worlds) for _ in sequential.WORSE]
    peak, bare = np.zeros(worlds), np.zeros(worlds)
    for hour in range(40):
        counts = rng.poisson(own)
        n += counts
        a, b = counts[:, :10].sum(1), counts[:, 10:].sum(1)
        logs = [
            one + sequential.two_arm(a, 10.0, b, 90.0, tests.effect, k, np.log)
            for one, k in zip(logs, sequential.WORSE)
        ]
        sums = []
        for part, size in ((n[:, :10], 10), (n[:, 10:], 90)):
            h = float(hour + 1)
            exposure = SimpleNamespace(vehicles=size, hours=size * h, squares=size * h * h)
            sums.append(((part.sum(1), (part**2).sum(1), part.sum(1) * h), exposure))
        phi = phi_of_arms(*sums[0], *sums[1], np.maximum)
        peak = np.maximum(peak, sequential.mixed(logs, phi, np.exp, np.minimum))
        bare = np.maximum(bare, sequential.mixed(logs, 1.0, np.exp, np.minimum))
    assert (peak >= 1e3).sum() == 0
    assert (bare >= 1e3).mean() > 0.02
