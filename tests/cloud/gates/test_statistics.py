"""The rule of the replay: what is worse by more than matters is refused, and noise is not."""

from __future__ import annotations

import numpy as np
import pytest

from cloud.gates.policy import Policy
from cloud.gates.statistics import (
    Difference,
    Figure,
    added,
    difference,
    mean_f1,
    multiplicities,
    negative_ece,
    ratio,
    student,
)
from edge.errors import ConfigError

SEGMENTS, FRAMES = 96, 10


def compared(rng: np.random.Generator, fall: float, alpha: float = 1e-4) -> Difference:
    """Two bundles that are right in 90 % of all frames, one of them in `fall` fewer; frames of a segment are alike."""
    difficulty = rng.normal(0, 0.05, SEGMENTS).repeat(FRAMES)
    unit = np.arange(SEGMENTS).repeat(FRAMES)
    same = rng.random(len(unit))
    figures = []
    for share in (0.9, 0.9 - fall):
        # three quarters of what decides is common to both bundles
        own = np.where(rng.random(len(unit)) < 0.75, same, rng.random(len(unit)))
        right = own < share + difficulty
        figures.append(Figure("accuracy", added(np.stack([right, np.ones(len(unit))], 1), unit), ratio, 0.01))
    found = difference("all", figures[0], figures[1], multiplicities(SEGMENTS, 1), alpha)
    assert found is not None
    return found


def test_bundle_that_is_as_good_is_hardly_ever_refused() -> None:
    rng = np.random.default_rng(0)
    assert sum(compared(rng, 0.0).is_worse for _ in range(300)) == 0


def test_bundle_that_is_worse_by_just_what_matters_is_hardly_ever_refused() -> None:
    rng = np.random.default_rng(1)
    assert sum(compared(rng, 0.01, alpha=0.02).is_worse for _ in range(300)) <= 300 * 0.02 * 3


def test_bundle_that_is_worse_by_ten_points_is_refused() -> None:
    rng = np.random.default_rng(2)
    assert all(compared(rng, 0.1).is_worse for _ in range(30))


def test_lower_bound_is_below_the_difference_and_falls_with_alpha() -> None:
    rng = np.random.default_rng(3)
    state = rng.bit_generator.state
    wide = compared(rng, 0.05, alpha=1e-4)
    rng.bit_generator.state = state
    narrow = compared(rng, 0.05, alpha=0.05)
    assert wide.low < narrow.low < wide.current - wide.candidate


def test_figure_that_vanishes_counts_as_nothing_right() -> None:
    draws = multiplicities(10, 0)
    before = Figure("F1", np.tile([5.0, 6.0, 6.0], (10, 1)), mean_f1, 0.01)
    now = Figure("F1", np.full((10, 3), np.nan), mean_f1, 0.01)
    found = difference("all", before, now, draws, 1e-4)
    assert found is not None and found.candidate == 0.0 and found.is_worse


def test_figure_that_the_current_bundle_has_not_is_not_compared() -> None:
    nothing = Figure("F1", np.zeros((10, 3)), mean_f1, 0.01)
    assert difference("all", nothing, nothing, multiplicities(10, 0), 1e-4) is None


@pytest.mark.parametrize(
    ("share", "degrees", "expected"), [(0.975, 10, 2.228), (0.999, 30, 3.385), (0.9999, 95, 3.870)]
)
def test_quantiles_are_those_of_students_table(share: float, degrees: int, expected: float) -> None:
    assert student(share, degrees) == pytest.approx(expected, rel=0.005)


def test_f1_and_calibration_are_those_of_their_definitions() -> None:
    assert mean_f1(np.array([[3.0, 4.0, 5.0, 1.0, 1.0, 1.0]]))[0] == pytest.approx((6 / 9 + 1) / 2)
    assert negative_ece(np.array([[10.0, 9.0, 5.0, 10.0, 1.0, 1.0]]))[0] == pytest.approx(-0.2)


def test_policy_refuses_what_it_does_not_know() -> None:
    assert Policy.of_dict({"effect": 0.05, "new_space": True}).effect == 0.05
    for given in ({"effekt": 1.0}, {"effect": "much"}, {"new_space": 1}, {"alpha": float("nan")}, {"slower": -1.0}):
        with pytest.raises(ConfigError, match="gate policy: expected"):
            Policy.of_dict(given)
