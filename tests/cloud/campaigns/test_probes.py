"""Queries as probes: what a vehicle can check is kept exactly, what it can't is refused or left to the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cloud.campaigns.probes import condition_from, direction, known_part, probe_from
from cloud.errors import QueryError
from cloud.search.predicate import ANY, And, Between, Has, In, Near, Not, Or, Predicate, Then, from_json
from cloud.search.query import Like, Query
from edge.campaigns.probe import AllOf, AnyOf, Bounds, Bundles, Likely, Negated, Vehicles, Within

BOUNDS: dict[str, Any] = {
    "least_cosine": 0.5, "budget_bytes": 100, "vehicle_budget_bytes": 50, "not_before_ns": 1, "expires_ns": 2,
}  # fmt: skip
NIGHT = Has("light:night")


def like(*values: float, space: str = "b1", weight: float = 1.0) -> Like:
    return Like(np.array(values, "<f4").tobytes(), space, "text", weight)


@pytest.mark.parametrize(
    ("predicate", "condition"),
    [
        (NIGHT, Likely("night", 0.5)),
        (Has("place:tunnel", 0.75), Likely("tunnel", 0.75)),
        (Has("intent:crosses"), Likely("pedestrian_crossing", 0.5)),
        (Has("tag:vehicle_close"), Likely("vehicle_close", 0.5)),
        (Has("sound:siren", 0.9), Likely("siren", 0.9, is_sound=True)),
        (Between("novelty", 0.5), Bounds("novelty", 0.5)),
        (Near(48.0, 11.0, 500.0), Within(48.0, 11.0, 500.0)),
        (In("vehicle", ("car-1",)), Vehicles(("car-1",))),
        (In("bundle", ("b1",)), Bundles(("b1",))),
        (And((NIGHT, Not(NIGHT))), AllOf((Likely("night", 0.5), Negated(Likely("night", 0.5))))),
        (Or((NIGHT, Between("hardness", high=0.5))), AnyOf((Likely("night", 0.5), Bounds("hardness", high=0.5)))),
    ],
)
def test_what_a_vehicle_knows_is_asked_as_it_was_said(predicate: Predicate, condition: object) -> None:
    assert condition_from(predicate) == condition


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (Has("vehicles:several"), "a label that a vehicle knows"),
        (Has("light:night", 0.4), "less is not told"),
        (Between("recorded_s", 1.0), "recorded_s"),
        (Between("duration_s", 1.0), "duration_s"),
        (Between("bytes", 1.0), "bytes"),
        (In("media", ("here",)), "media"),
        (Then(NIGHT, NIGHT), "then"),
        (And((NIGHT, Not(Then(NIGHT, NIGHT)))), "then"),
    ],
)
def test_what_a_vehicle_cannot_know_is_refused_in_one_line(predicate: Predicate, words: str) -> None:
    with pytest.raises(QueryError, match=words) as caught:
        condition_from(predicate)
    assert "\n" not in str(caught.value)


def test_labels_that_a_vehicle_does_not_know_are_left_to_the_embedding_but_nothing_else_is() -> None:
    asked = And((NIGHT, Has("vehicles:several")))
    condition, left = known_part(asked, asked)
    assert (condition, left) == (AllOf((Likely("night", 0.5),)), ["vehicles:several"])
    choice = Or((Has("large:truck"), NIGHT))
    assert known_part(choice, choice) == (AllOf(()), ["large:truck", "light:night"])
    for lost in (Not(Has("vehicles:several")), Then(NIGHT, NIGHT), Between("bytes", 1.0)):
        with pytest.raises(QueryError):
            known_part(And((NIGHT, lost)), And((NIGHT, lost)))


def test_labels_that_a_vehicle_does_not_know_are_refused_where_no_words_ask_for_them() -> None:
    several = And((NIGHT, Has("vehicles:several")))
    for words in (ANY, NIGHT, Has("large:truck")):
        with pytest.raises(QueryError, match="got 'vehicles:several'"):
            known_part(several, words)
    assert known_part(NIGHT) == (AllOf((Likely("night", 0.5),)), [])


def test_vectors_add_up_to_one_direction_of_one_space() -> None:
    signed, space = direction((like(1.0, 0.0), like(0.0, 1.0, weight=-1.0)))
    assert np.frombuffer(signed, np.int8).tolist() == [127, -127] and space == "b1"
    assert direction(()) == (b"", "")
    for likes in (
        (like(1.0, 0.0), like(1.0, 0.0, space="b2")),
        (like(1.0), like(1.0, 0.0)),
        (like(1.0), like(1.0, weight=-1.0)),
    ):
        with pytest.raises(QueryError):
            direction(likes)


def test_a_probe_says_what_the_query_says() -> None:
    probe = probe_from(Query(NIGHT, (like(0.6, 0.8),)), "id", "name", **BOUNDS)
    assert probe.condition == Likely("night", 0.5) and probe.bundle_id == "b1" and probe.least_cosine == 0.5
    assert (probe.budget_bytes, probe.vehicle_budget_bytes, probe.most_bytes) == (100, 50, 50)
    assert probe_from(Query(NIGHT), "id", "name", **BOUNDS).embedding == b""


@pytest.mark.parametrize(
    ("query", "other"),
    [
        (Query(), {}),
        (Query(NIGHT), {"budget_bytes": 0}),
        (Query(NIGHT), {"vehicle_budget_bytes": 101}),
        (Query(NIGHT), {"expires_ns": 1}),
        (Query(NIGHT), {"weight": 0.0}),
        (Query(NIGHT), {"weight": float("nan")}),
        (Query(NIGHT, (like(1.0),)), {"least_cosine": 1.5}),
        (Query(NIGHT, (like(1.0),)), {"least_cosine": float("nan")}),
        (Query(And(tuple(NIGHT for _ in range(65)))), {}),
    ],
)
def test_a_campaign_without_bounds_or_for_everything_is_refused(query: Query, other: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        probe_from(query, "id", "name", **{**BOUNDS, **other})


def test_the_json_that_people_write_becomes_a_condition() -> None:
    written = {"and": [{"has": "sound:siren"}, {"not": {"field": "vehicle", "in": ["car-1"]}}]}
    assert condition_from(from_json(written)) == AllOf(
        (Likely("siren", 0.5, is_sound=True), Negated(Vehicles(("car-1",))))
    )
