"""The rules of clock offsets: planted shifts come back within their uncertainty, and what can't be told is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.rig.correlate import MAX_LAG_S, Series, find_offset


def motion(seed: int, seconds: float, noise: float, shift_s: float, rate_hz: float = 20.0) -> tuple[Series, Series]:
    """One motion seen by a sensor of 100 Hz and by another whose clock is `shift_s` later."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(0.2, 2.5, 40), rng.uniform(0, 2 * np.pi, 40), rng.normal(size=40) / 2

    def at(instants: NDArray[np.float64]) -> NDArray[np.float64]:
        hz, phase, size = waves
        return np.asarray((size * np.sin(2 * np.pi * hz * instants[:, None] + phase)).sum(axis=1))

    first = np.arange(0.0, seconds, 0.01)
    second = np.sort(np.arange(0.0, seconds, 1 / rate_hz) + rng.uniform(-0.2, 0.2) / rate_hz)
    return (
        Series(first, at(first) + noise * rng.normal(size=len(first))),
        Series(second + shift_s, at(second) + noise * rng.normal(size=len(second))),
    )


@given(st.integers(0, 10_000), st.floats(-0.8, 0.8))
@settings(max_examples=25)
def test_a_planted_shift_is_recovered_to_a_part_of_a_sample(seed: int, shift_s: float) -> None:
    found = find_offset(*motion(seed, 30.0, 0.3, shift_s))
    assert found.offset_s is not None and found.std_s is not None, found.reason
    assert abs(found.offset_s - shift_s) < 0.015  # the slower sensor's period is 0.05


def test_errors_lie_within_the_stated_uncertainty() -> None:
    within = []
    for seed in range(60):
        shift_s = 0.01 * (seed % 40) - 0.2
        found = find_offset(*motion(seed, 30.0, 1.5, shift_s))
        if found.offset_s is not None and found.std_s is not None:
            within.append(abs(found.offset_s - shift_s) <= 2 * found.std_s)
    assert len(within) > 50
    assert np.mean(within) >= 0.9


@pytest.mark.parametrize("seed", range(20))
def test_unrelated_signals_have_no_offset(seed: int) -> None:
    found = find_offset(motion(seed, 30.0, 0.3, 0.0)[0], motion(seed + 1000, 30.0, 0.3, 0.0)[1], signed=False)
    assert found.offset_s is None and found.reason


def test_a_standing_vehicle_tells_no_offset() -> None:
    rng = np.random.default_rng(0)
    stamps = np.arange(0.0, 40.0, 0.01)
    noise = Series(stamps, rng.normal(size=len(stamps)) * 1e-3)
    still = find_offset(Series(stamps, np.zeros(len(stamps))), noise)
    assert still.offset_s is None and "does not change" in still.reason
    trembling = find_offset(Series(stamps, rng.normal(size=len(stamps)) * 1e-3), noise)
    assert trembling.offset_s is None and "unrelated" in trembling.reason


def test_a_periodic_motion_leaves_open_which_period() -> None:
    stamps = np.arange(0.0, 40.0, 0.01)
    wave = Series(stamps, np.sin(2 * np.pi * stamps))
    found = find_offset(wave, Series(stamps + 0.2, wave.values))
    assert found.offset_s is None and found.reason


def test_a_shift_beyond_the_lags_is_not_told() -> None:
    first, second = motion(3, 60.0, 0.1, MAX_LAG_S + 1.0)
    assert find_offset(first, second).offset_s is None


def test_the_sign_of_an_axis_may_be_unknown() -> None:
    first, second = motion(5, 30.0, 0.2, 0.13)
    turned = Series(second.stamps_s, -second.values)
    assert find_offset(first, turned).offset_s is None
    found = find_offset(first, turned, signed=False)
    assert found.offset_s == pytest.approx(0.13, abs=0.01)


def test_a_signal_that_is_sampled_too_seldom_is_said_to_be_so() -> None:
    found = find_offset(*motion(6, 40.0, 0.0, 0.1, rate_hz=1.0))
    assert found.offset_s is None
    assert found.reason == "samples are 1 s apart, expected at most 0.5 s"


def test_a_gap_is_not_bridged() -> None:
    first, second = motion(6, 40.0, 0.2, -0.07)
    kept = (second.stamps_s < 15.0) | (second.stamps_s > 25.0)
    found = find_offset(first, Series(second.stamps_s[kept], second.values[kept]))
    assert found.offset_s == pytest.approx(-0.07, abs=0.015)


def test_a_sample_from_before_the_clock_was_set_changes_nothing() -> None:
    first, second = motion(6, 40.0, 0.2, -0.07)
    set_s = 1.7e9
    before = Series(np.append(0.0, first.stamps_s + set_s), np.append(1.0, first.values))
    found = find_offset(before, Series(second.stamps_s + set_s, second.values))
    assert found.offset_s == pytest.approx(-0.07, abs=0.015)


@pytest.mark.parametrize("gap_s", [3 * 86_400.0, 1.7e9])
def test_signals_that_span_more_than_a_drive_are_said_to_do_so(gap_s: float) -> None:
    apart = [
        Series(np.append(one.stamps_s[:10], one.stamps_s[10:] + gap_s), one.values) for one in motion(6, 40.0, 0.2, 0.0)
    ]
    found = find_offset(*apart)
    assert found.offset_s is None
    assert found.reason == f"both span {gap_s + 40:.3g} s, expected at most 43200 s"


@pytest.mark.parametrize("seconds", [0.0, 0.1, 5.0])
def test_too_little_drive_tells_nothing(seconds: float) -> None:
    found = find_offset(*motion(1, seconds, 0.1, 0.0))
    assert found.offset_s is None and "expected at least 5 s" in found.reason
