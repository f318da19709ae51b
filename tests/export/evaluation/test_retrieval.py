"""Retrieval has one right answer a query, and equal captions are taken out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.evaluation.retrieval import distinct_rows, retrieval_figures


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 20))
def test_no_two_rows_mean_the_same(moments: list[int], count: int) -> None:
    rows = distinct_rows(np.array(moments), count, np.random.default_rng(0))
    chosen = [moments[row] for row in rows]
    assert len(chosen) == len(set(chosen)) == min(count, len(set(moments)))


def test_equal_spaces_find_everything_and_foreign_ones_nothing_but_chance() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(400, 16)).astype(np.float32)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    facts = np.arange(400, dtype=np.int16)[:, None]
    found = retrieval_figures({"text": one, "scene": one, "image": one[::-1].copy()}, facts)
    assert found["among"] == 400
    assert found["pairs"]["text to scene"]["r1"] == 1.0
    assert found["pairs"]["text to image"]["r1"] < 0.05
    assert found["pairs"]["text to scene"].keys() == {"r1", "r5", "r10"}


def test_pairs_without_both_sides_are_left_out() -> None:
    found = retrieval_figures({"scene": np.eye(4, dtype=np.float32)}, np.arange(4, dtype=np.int16)[:, None])
    assert found["pairs"] == {}
