"""What matches: exact cosines, conditions that mean what they say, frames and summaries alike."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.campaigns.choosing import known_of
from edge.campaigns.matching import Known, Matcher
from edge.campaigns.probe import (
    ALWAYS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    AllOf,
    AnyOf,
    Bounds,
    Bundles,
    Condition,
    Likely,
    Negated,
    Probe,
    ProbeSet,
    Vehicles,
    Within,
    size,
)
from edge.campaigns.wire import from_message, parse_set, set_bytes, to_message
from roadfuse.v1.ingest_pb2 import SceneSummary

KNOWN = Known("b1", b"", {"night": 0.9, "rain": 0.6}, {"siren": 0.8}, {"hardness": 0.4, "novelty": 0.7}, (48.1, 11.5))
# Probabilities that float32 holds.
SHARE = st.integers(0, 64).map(lambda part: part / 64)
LEAVES = st.one_of(
    st.builds(Likely, st.sampled_from(["night", "rain", "fog"]), SHARE, st.booleans()),
    st.builds(Bounds, st.sampled_from(["hardness", "novelty", "flicker"]), SHARE, SHARE),
    st.builds(Within, st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 1e7)),
    st.builds(Vehicles, st.lists(st.sampled_from(["car-1", "car-2"]), max_size=2).map(tuple)),
    st.builds(Bundles, st.lists(st.sampled_from(["b1", "b2"]), max_size=2).map(tuple)),
)
TREES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(AllOf, st.lists(parts, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(parts, max_size=3).map(tuple)),
        st.builds(Negated, parts),
    ),
    max_leaves=12,
).filter(lambda tree: depth(tree) < MAX_DEPTH and size(tree) < MAX_CONDITIONS)


def depth(tree: Condition) -> int:
    parts = tree.parts if isinstance(tree, AllOf | AnyOf) else (tree.part,) if isinstance(tree, Negated) else ()
    return 1 + max(map(depth, parts), default=0)


def holds(condition: Condition, known: Known = KNOWN, vehicle: str = "car-1") -> bool:
    return bool(Matcher(ProbeSet((Probe("a", condition=condition),), vehicle))(known))


def near(embedding: bytes, least: float = -1.0, campaign: str = "a") -> Probe:
    return Probe(campaign, bundle_id="b1", embedding=embedding, least_cosine=least)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (ALWAYS, True),
        (AnyOf(), False),
        (Likely("night", 0.9), True),
        (Likely("night", 0.95), False),
        (Likely("siren", 0.5), False),
        (Likely("siren", 0.5, is_sound=True), True),
        (Likely("fog", 0.0), True),
        (Bounds("hardness", 0.4, 0.4), True),
        (Bounds("novelty", high=0.5), False),
        (Bounds("flicker", 0.0, 0.0), True),
        (Within(48.1, 11.51, 800.0), True),
        (Within(48.1, 11.51, 700.0), False),
        (Vehicles(("car-1",)), True),
        (Vehicles(("car-2",)), False),
        (Bundles(("b2",)), False),
        (AllOf((Likely("night", 0.5), Negated(Likely("siren", 0.5, is_sound=True)))), False),
        (AnyOf((Likely("fog", 0.5), Likely("rain", 0.5))), True),
    ],
)
def test_conditions_mean_what_they_say(condition: Condition, expected: bool) -> None:
    assert holds(condition) is expected


@given(TREES)
def test_a_tree_means_the_same_after_the_wire_and_its_denial_the_opposite(tree: Condition) -> None:
    message = to_message(Probe("a", condition=AllOf((tree,))))
    sent = from_message(type(message).FromString(message.SerializeToString()))
    assert holds(sent.condition) is holds(tree) is not holds(Negated(tree))


def test_without_a_position_no_place_is_near() -> None:
    nowhere = Known("b1", b"", {}, {}, {}, None)
    assert not holds(Within(0, 0, 1e9), nowhere) and holds(Negated(Within(0, 0, 1e9)), nowhere)


def test_cosines_are_exact_in_any_order_of_probes_and_dimensions() -> None:
    rng = random.Random(3)
    for dimensions in (1, 7, 192, 1024, 1500):
        rows = [bytes(rng.randrange(1, 256) for _ in range(dimensions)) for _ in range(9)]
        asked = rows[4]
        order = rng.sample(range(9), 9)
        places = rng.sample(range(dimensions), dimensions)
        straight = Matcher(ProbeSet(tuple(near(row, campaign=str(i)) for i, row in enumerate(rows))))
        mixed = Matcher(
            ProbeSet(tuple(near(bytes(rows[i][p] for p in places), campaign=str(i)) for i in order))
        )  # fmt: skip
        found = straight(Known("b1", asked, {}, {}, {}))
        assert found == mixed(Known("b1", bytes(asked[p] for p in places), {}, {}, {}))
        signed = np.array([np.frombuffer(row, np.int8) for row in rows]).astype(object)
        for match in found:
            row = signed[int(match.campaign)]
            exact = int(row @ signed[4]) / (float(row @ row) ** 0.5 * float(signed[4] @ signed[4]) ** 0.5)
            assert match.score == pytest.approx(exact, abs=1e-12)
        assert dict(found)["4"] == pytest.approx(1.0)


def test_another_bundles_embeddings_and_other_lengths_match_nothing() -> None:
    matcher = Matcher(ProbeSet((near(b"\x01\x02\x03"),)))
    assert matcher(Known("b1", b"\x01\x02\x03", {}, {}, {}))
    assert not matcher(Known("b2", b"\x01\x02\x03", {}, {}, {}))
    assert not matcher(Known("b1", b"\x01\x02\x03\x04", {}, {}, {}))
    assert not matcher(Known("b1", b"\0\0\0", {}, {}, {}))
    assert not matcher(Known("b1", b"", {}, {}, {}))


def test_nearness_and_condition_must_both_hold() -> None:
    both = Probe("a", bundle_id="b1", embedding=b"\x05\x05", least_cosine=0.9, condition=Likely("night", 0.5))
    matcher = Matcher(ProbeSet((both,)))
    night = {"night": 0.9}
    assert matcher(Known("b1", b"\x05\x05", night, {}, {}))
    assert not matcher(Known("b1", b"\x05\x05", {}, {}, {}))
    assert not matcher(Known("b1", b"\x05\xfb", night, {}, {}))


def test_a_stopped_probe_matches_nothing() -> None:
    assert not Matcher(ProbeSet((Probe("a", is_stopped=True),)))


def test_a_summary_is_known_by_what_it_tells() -> None:
    summary = SceneSummary(bundle_id="b1", hardness=0.5, embedding=b"\x01\x02")
    summary.scores.add(name="novelty", value=0.25)
    summary.scene_tags.add(name="night", probability=0.75)
    summary.sound_events.add(name="siren", probability=0.5)
    known = known_of(summary)
    assert known == Known("b1", b"\x01\x02", {"night": 0.75}, {"siren": 0.5}, {"hardness": 0.5, "novelty": 0.25}, None)
    summary.latitude_deg, summary.longitude_deg = 48.0, 11.0
    assert known_of(summary).place == (48.0, 11.0)


def test_a_set_comes_back_as_it_was_written() -> None:
    probes = ProbeSet((near(b"\x01\xff", 0.5), Probe("c", condition=Bounds("novelty", 0.5))), "car-1", 12_345)
    assert parse_set(set_bytes(probes)) == probes
