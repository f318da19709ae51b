"""Choosing frames: the rare is in, the choice is the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.coverage import choose, radius
from edge.errors import ConfigError


def many_alike_and_few_rare() -> np.ndarray:
    features = np.random.default_rng(0).normal(0, 0.05, (300, 6)).astype(np.float32)
    features[150] += [0, 3, 0, 0, 0, 0]  # the one night
    features[200] += [0, 0, 0, -1, 0, 0]  # the one dead sensor
    return features


def test_the_rare_frames_are_chosen() -> None:
    assert {150, 200} <= set(choose(many_alike_and_few_rare(), 5))


def test_coverage_beats_even_spacing() -> None:
    features = many_alike_and_few_rare()
    evenly = list(range(0, 300, 60))
    assert radius(features, choose(features, 5)) < 0.5 * radius(features, evenly)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_as_many_as_wanted_or_all_ascending_and_never_twice(frames: int, count: int, seed: int) -> None:
    features = np.random.default_rng(seed).integers(0, 3, (frames, 2)).astype(np.float32)
    chosen = choose(features, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, frames)
    assert chosen == choose(features.copy(), count)


def test_within_twice_the_best_radius() -> None:
    line = np.arange(0, 101, dtype=np.float32)[:, None]  # 3 centres cover it at radius 17 at best
    assert radius(line, choose(line, 3)) <= 2 * 17


@pytest.mark.parametrize(("frames", "count"), [(0, 1), (3, 0)])
def test_nothing_to_choose_is_refused(frames: int, count: int) -> None:
    with pytest.raises(ConfigError, match="expected at least one"):
        choose(np.zeros((frames, 2), np.float32), count)
