"""Trees of conditions: their JSON and messages say what they are, and nothing else is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.errors import QueryError
from cloud.search.cursor import Cursor, decode
from cloud.search.predicate import (
    MAX_DEPTH,
    MAX_NODES,
    MEDIA,
    NUMBERS,
    TEXTS,
    And,
    Between,
    Has,
    In,
    Near,
    Not,
    Or,
    Predicate,
    Then,
    depth,
    from_json,
    nodes,
    to_json,
)
from cloud.search.wire import condition_message, condition_of

TEXT = st.text(min_size=1, max_size=128).filter(str.isprintable)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.one_of(
    st.builds(Has, TEXT, st.floats(0, 1)),
    st.builds(Between, st.sampled_from(NUMBERS), FINITE, FINITE),
    st.builds(Between, st.sampled_from(NUMBERS)),
    st.builds(lambda field, values: In(field, tuple(values)), st.sampled_from(TEXTS[:2]), st.lists(TEXT, max_size=4)),
    st.builds(lambda values: In("media", tuple(values)), st.lists(st.sampled_from(MEDIA), max_size=4)),
    st.builds(Near, st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 2e7)),
)
TREES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(lambda some: And(tuple(some)), st.lists(parts, max_size=3)),
        st.builds(lambda some: Or(tuple(some)), st.lists(parts, max_size=3)),
        st.builds(Not, parts),
        st.builds(Then, parts, parts, st.floats(0, 3600)),
    ),
    max_leaves=10,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=20)),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.dictionaries(
            st.sampled_from(("and", "or", "not", "then", "within_s", "has", "least", "field", "in", "from", "near")),
            parts,
            max_size=3,
        ),
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(tree=TREES)
def test_json_and_messages_say_the_same_tree(tree: Predicate) -> None:
    if depth(tree) > MAX_DEPTH:
        return
    assert from_json(json.loads(json.dumps(to_json(tree)))) == tree
    assert condition_of(condition_message(tree)) == tree


@settings(max_examples=300)
@given(value=JSON)
def test_any_json_is_a_tree_or_refused_in_one_line(value: Any) -> None:
    try:
        tree = from_json(value)
    except QueryError as error:
        assert "\n" not in str(error) and "expected" in str(error)
    else:
        assert from_json(to_json(tree)) == tree


@pytest.mark.parametrize(
    "value",
    [
        {"and": [], "or": []},
        {"has": "x", "most": 1},
        {"has": ""},
        {"has": "x\ny"},
        {"has": "x", "least": True},
        {"has": "x", "least": float("nan")},
        {"has": "x", "least": 10**400},
        {"field": "bytes", "from": -(10**400)},
        {"field": "vehicle", "from": 1},
        {"field": "hardness", "in": ["a"]},
        {"field": "password", "in": ["a"]},
        {"field": "media", "in": ["moon"]},
        {"near": [91, 0], "radius_m": 1},
        {"near": [1, 2]},
        {"then": [{"has": "x"}]},
        {"then": [{"has": "x"}, {"has": "y"}], "within_s": -1},
        {"not": []},
        [],
        "night",
        None,
    ],
)
def test_other_forms_are_refused(value: Any) -> None:
    with pytest.raises(QueryError, match="expected"):
        from_json(value)


def test_a_tree_has_bounds() -> None:
    deep: Any = {"has": "x"}
    for _ in range(MAX_DEPTH):
        deep = {"not": deep}
    wide = {"or": [{"has": "x"}] * MAX_NODES}
    for value in (deep, wide):
        with pytest.raises(QueryError, match="deep"):
            from_json(value)
    assert nodes(from_json({"or": [{"has": "x"}] * (MAX_NODES - 1)})) == MAX_NODES


@settings(max_examples=200)
@given(
    now_s=st.floats(0, 1e12),
    score=st.floats(-1e6, 1e6, width=32),
    scene=st.integers(-1, 2**62),
    shown=st.lists(st.integers(1, 2**62), max_size=20),
)
def test_a_cursor_comes_back_as_it_went(now_s: float, score: float, scene: int, shown: list[int]) -> None:
    cursor = Cursor(now_s, (score, scene), tuple(shown), b"12345678")
    assert decode(cursor.encode()) == cursor


@settings(max_examples=200)
@given(said=st.text(max_size=80))
def test_any_text_is_a_cursor_or_refused(said: str) -> None:
    try:
        decode(said)
    except QueryError as error:
        assert "cursor" in str(error)
