"""Compiled loops over bits say what plain loops over rows do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.search import kernel
from cloud.search.bitmaps import packed


@settings(deadline=None)  # compiling takes as long as it takes
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 150)), max_size=8),
    st.integers(0, 2**32),
    st.sampled_from((0.0, 0.02, 0.5, 1.0)),
)
def test_a_scene_counts_once_however_many_of_its_rows_match(
    scenes: list[tuple[bool, int]], seed: int, share: float
) -> None:
    lengths = [length if is_long else 1 for is_long, length in scenes]
    row_scene = np.repeat(np.arange(len(lengths)), lengths)
    is_first = np.diff(row_scene, prepend=-1) != 0
    matches = np.random.default_rng(seed).random(len(row_scene)) < share
    assert kernel.scenes_of(packed(matches), packed(is_first)) == len(set(row_scene[matches].tolist()))


@given(st.lists(st.booleans(), max_size=300))
def test_rows_and_bits_are_the_same_set(is_set: list[bool]) -> None:
    mask = np.array(is_set, np.bool_)
    words = packed(mask)
    rows = kernel.rows_of(words)
    assert rows.tolist() == np.flatnonzero(mask).tolist() and kernel.count_of(words) == len(rows)
    again = np.zeros_like(words)
    kernel.bits_of(rows, again)
    assert again.tolist() == words.tolist()
