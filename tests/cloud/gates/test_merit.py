"""What is judged at all: what holds often enough, in segments enough to tell a difference from noise."""

from __future__ import annotations

import numpy as np
import pytest

from cloud.gates.merit import Merit
from cloud.gates.outcome import LABELS, Outcome, Truth
from cloud.gates.policy import Policy
from edge.bundle import load
from export.model.labels import OBJECTS, SCENE_TAGS, SOUND_EVENTS, SURFACES
from export.training.targets import SURFACE, Targets

SEGMENTS, FRAMES = 10, 12  # of each
COUNT = SEGMENTS * FRAMES
POLICY = Policy()


def merit(segments: int) -> Merit:
    """Of decisions that are all right: fog, a siren, a sign and a marking are in every frame of some segments.

    Rain, a vehicle and the road are in every frame of all.
    """
    everywhere = np.ones(COUNT, bool)
    somewhere = np.arange(COUNT) < segments * FRAMES
    tags = np.zeros((COUNT, len(SCENE_TAGS)), np.uint8)
    tags[:, SCENE_TAGS.index("rain")], tags[:, SCENE_TAGS.index("fog")] = everywhere, somewhere
    sounds = np.zeros((COUNT, len(SOUND_EVENTS)), np.uint8)
    sounds[:, SOUND_EVENTS.index("siren")] = somewhere
    boxes = np.full((COUNT, 32, 9), -1.0, np.float32)
    boxes[:, 0] = OBJECTS.index("vehicle"), 0.1, 0.1, 0.2, 0.2, 1, -1, -1, 0
    boxes[somewhere, 1] = OBJECTS.index("sign"), 0.6, 0.6, 0.2, 0.2, 1, 0, -1, -1
    surface = np.full((COUNT, *SURFACE), SURFACES.index("road"), np.uint8)
    surface[somewhere, :4] = SURFACES.index("lane_marking")
    targets = Targets(
        boxes, tags, sounds, np.where(sounds, 0.5, -1.0).astype(np.float32), np.zeros((COUNT, 13), np.int16),
        np.zeros((COUNT, 2), np.int16),
    )  # fmt: skip
    truth = Truth((), np.arange(COUNT) // FRAMES, targets, surface, {"all": everywhere})
    single = {head: np.eye(len(LABELS[head]))[np.zeros(COUNT, int)] for head in ("ego_action", "intent")}
    heads = {"scene_tags": tags.astype(float), "sound_events": sounds.astype(float), **single}
    found = [
        np.array([[row[0], 0.9, *row[1:5], max(row[6:])] for row in rows if row[0] >= 0], np.float32) for rows in boxes
    ]
    outcome = Outcome(
        heads | {"sound_onsets": np.full((COUNT, len(SOUND_EVENTS)), 0.5)}, found, surface,
        np.zeros((COUNT, 0), np.float32), {}, COUNT,
    )  # fmt: skip
    return Merit(load(), outcome, truth)


def names(made: Merit) -> set[str]:
    figures = [*made.figures(np.ones(COUNT, bool), POLICY), *made.labels(POLICY)]
    assert all(np.isfinite(figure.value(figure.sums.sum(0)[None])).all() for figure in figures)
    return {figure.name for figure in figures}


RARE = {
    "F1 of scene_tags fog", "F1 of sound_events", "F1 of sound_events siren", "F1 of sign boxes", "kinds of signs",
    "onsets of sounds, s", "IoU of lane_marking",
}  # fmt: skip


@pytest.mark.parametrize("segments", [1, POLICY.least_units - 1])
def test_what_holds_in_few_segments_is_not_judged_however_many_frames_these_have(segments: int) -> None:
    judged = names(merit(segments))
    assert not judged & RARE
    assert {"F1 of scene_tags", "F1 of scene_tags rain", "F1 of vehicle boxes", "IoU of road"} <= judged


def test_what_holds_in_enough_segments_is_judged() -> None:
    assert names(merit(POLICY.least_units)) >= RARE


def test_the_f1_of_a_head_is_of_labels_that_hold_in_enough_segments() -> None:
    figures = {figure.name: figure for figure in merit(1).figures(np.ones(COUNT, bool), POLICY)}
    assert figures["F1 of scene_tags"].sums.shape == (SEGMENTS, 3)
