"""What a scene is worth: the errors that its frames' heads expect of themselves, more where it is new."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decision import Decision, HeadReadings, Reading, Tag
from edge.uplink.summary import doubt, worth
from roadfuse.v1 import decision_pb2
from roadfuse.v1.ingest_pb2 import SceneSummary

CHANCE = st.floats(0.0, 1.0, width=32)


def decision(tags: list[float], sounds: list[float], heads: dict[str, list[float]]) -> Decision:
    """A decision that says just this."""
    message = decision_pb2.Decision(
        scene_tags=[decision_pb2.Tag(name=f"t{i}", probability=p) for i, p in enumerate(tags)],
        sound_events=[decision_pb2.Tag(name=f"s{i}", probability=p) for i, p in enumerate(sounds)],
        scene_state=decision_pb2.SCENE_STATE_QUIET, emit_reason=decision_pb2.EMIT_REASON_SETTLED,
        heads=[
            decision_pb2.HeadReadings(
                name=name, readings=[decision_pb2.Reading(label=f"l{i}", value=p) for i, p in enumerate(values)]
            )
            for name, values in heads.items()
        ],
    )  # fmt: skip
    return Decision.from_message(message)


def summary(novelty: float, hardness: float = 0.5) -> SceneSummary:
    """Of a scene so new."""
    told = SceneSummary(hardness=hardness)
    told.scores.add(name="novelty", value=novelty, weight=0.35)
    return told


def test_sure_heads_leave_no_doubt() -> None:
    assert doubt(decision([0.0, 1.0], [1.0], {"ego_action": [1.0, 0.0]})) == 0.0


def test_a_label_counts_with_the_chance_that_it_is_told_wrongly() -> None:
    assert doubt(decision([0.9, 0.2], [0.5], {})) == pytest.approx(0.1 + 0.2 + 0.5, abs=1e-6)


def test_a_head_that_chooses_counts_with_what_its_choice_leaves() -> None:
    assert doubt(decision([], [], {"intent": [0.7, 0.2, 0.1]})) == pytest.approx(0.3, abs=1e-6)


def test_seconds_since_an_onset_are_no_doubt() -> None:
    assert doubt(decision([], [], {"sound_onsets": [1.7, 0.2, 3.0], "empty": []})) == 0.0


@given(st.lists(CHANCE, max_size=20), st.lists(CHANCE, max_size=8))
def test_doubt_is_at_most_half_a_label(tags: list[float], sounds: list[float]) -> None:
    assert 0.0 <= doubt(decision(tags, sounds, {})) <= 0.5 * (len(tags) + len(sounds)) + 1e-6


def test_more_doubt_and_more_novelty_are_worth_more_and_hardness_has_no_say() -> None:
    assert worth(summary(0.3), 2.0) > worth(summary(0.3), 1.0)
    assert worth(summary(0.6), 2.0) > worth(summary(0.3), 2.0)
    assert worth(summary(0.3, hardness=0.1), 2.0) == worth(summary(0.3, hardness=0.9), 2.0)


@pytest.mark.parametrize("doubts", [math.nan, math.inf])
def test_what_is_no_number_is_worth_nothing(doubts: float) -> None:
    assert worth(summary(0.3), doubts) == 0.0


def test_tags_are_named_as_the_loop_names_them() -> None:
    told = decision([0.25], [], {"ego_action": [0.5, 0.5]})
    assert told.scene_tags == (Tag("t0", 0.25),)
    assert told.heads == (HeadReadings("ego_action", (Reading("l0", 0.5), Reading("l1", 0.5))),)
