"""Labels of a decision: calibrated as the manifest says, facts by their own heads, odd bundles survived."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cloud.analyst.heads import Heads, sound_onsets
from cloud.labels import LABELS
from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision, HeadReadings, Reading, SceneState, Tag
from edge.frameset import EmitReason


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load()


def decision(bundle_id: str, tags: Any = (), sounds: Any = (), heads: Any = ()) -> Decision:
    return Decision(
        stamp_ns=1, frame_seq=1, index=0, emitted_ns=2, reason=EmitReason.SETTLED, modalities=(), overload_level=0,
        hardness=0.5, scores=(), scene_tags=tuple(Tag(*tag) for tag in tags),
        sound_events=tuple(Tag(*tag) for tag in sounds), objects=(), embedding=b"", scene_state=SceneState.QUIET,
        scene=0, scene_refusal="", digests=(), bundle_id=bundle_id, degraded=False,
        heads=tuple(HeadReadings(name, tuple(Reading(*reading) for reading in readings)) for name, readings in heads),
    )  # fmt: skip


def of_head(bundle: Bundle, head: str, p: float) -> list[tuple[str, float]]:
    return [(label, p) for label in bundle.heads[head]]


def test_tags_sounds_and_facts_get_the_names_of_labels(bundle: Bundle) -> None:
    told = decision(
        "another", [("night", 0.9), ("vehicle_close", 0.4), ("braking", 0.3)], [("siren", 0.8)],
        [("ego_action", [("brake", 0.7), ("stop", 0.1)]), ("intent", [("none", 0.2), ("waits", 0.8)]),
         ("sound_onsets", [("siren", 0.4)])],
    )  # fmt: skip
    labels = Heads(bundle).labels(told)
    assert labels == {
        "light:night": 0.9, "tag:vehicle_close": 0.4, "action:brake": 0.7, "action:stop": 0.1, "intent:waits": 0.8,
        "sound:siren": 0.8,
    }  # fmt: skip
    assert sound_onsets(told) == {"sound:siren": 0.4}


def test_probabilities_of_this_bundle_are_calibrated_and_of_another_are_not(bundle: Bundle) -> None:
    labels = bundle.heads["scene_tags"]
    count = len(labels)
    confidence = {"scene_tags": {"kind": "multi", "temperatures": [2.0] * count, "biases": [0.5] * count}}
    heads = Heads(dataclasses.replace(bundle, confidence=confidence))
    own = heads.labels(decision(bundle.id, of_head(bundle, "scene_tags", 0.9)))
    wanted = 1.0 / (1.0 + np.exp(-(np.log(9.0) / 2.0 + 0.5)))
    assert all(p == pytest.approx(wanted) for p in own.values()) and len(own) == count
    other = heads.labels(decision("another", of_head(bundle, "scene_tags", 0.9)))
    assert set(other.values()) == {0.9}


def test_values_of_a_fact_exclude_each_other_when_calibrated(bundle: Bundle) -> None:
    count = len(bundle.heads["ego_action"])
    confidence = {"ego_action": {"kind": "single", "temperatures": [3.0] * count, "biases": [0.0] * count}}
    heads = Heads(dataclasses.replace(bundle, confidence=confidence))
    said = [(label, 0.9 if i == 0 else 0.02) for i, label in enumerate(bundle.heads["ego_action"])]
    found = heads.labels(decision(bundle.id, heads=[("ego_action", said)]))
    assert sum(found.values()) == pytest.approx(1.0) and 0.3 < found["action:cruise"] < 0.9
    assert found.keys() <= set(LABELS)


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"kind": "multi"},
        {"kind": "odd", "temperatures": [1.0] * 17, "biases": [0.0] * 17},
        {"kind": "multi", "temperatures": [1.0], "biases": [0.0]},
        {"kind": "multi", "temperatures": [0.0] * 17, "biases": [0.0] * 17},
        {"kind": "multi", "temperatures": ["x"] * 17, "biases": [0.0] * 17},
        {"kind": "multi", "temperatures": [float("nan")] * 17, "biases": [0.0] * 17},
    ],
)
def test_a_bundle_whose_confidence_is_none_is_taken_at_its_word(bundle: Bundle, told: Any) -> None:
    heads = Heads(dataclasses.replace(bundle, confidence={"scene_tags": told}))
    found = heads.labels(decision(bundle.id, of_head(bundle, "scene_tags", 0.8)))
    assert set(found.values()) == {0.8}
