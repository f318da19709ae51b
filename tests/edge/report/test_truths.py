"""The report holds decisions against the same truth as training does."""

from __future__ import annotations

from pathlib import Path

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.report.truths import SOUNDS, TAGS, true_sounds, true_tags
from export.model.labels import SCENE_TAGS, SOUND_EVENTS
from export.training.targets import targets
from roadfuse.v1 import truth_pb2


def test_the_words_are_the_heads() -> None:
    assert SCENE_TAGS == TAGS
    assert SOUND_EVENTS == SOUNDS


def test_a_label_is_true_here_where_it_is_true_in_training(drive: Path) -> None:
    with DriveReader(drive) as messages:
        truths = [truth_pb2.GroundTruth.FromString(m.payload) for m in messages.messages(topics=[topics.TRUTH])]
    assert len(truths) == 80
    for truth in truths:
        taught = targets(truth, 640, 384)
        assert true_tags(truth, 384) == {name for name, on in zip(SCENE_TAGS, taught.tags) if on}
        heard = {name for name, on in zip(SOUND_EVENTS, taught.sounds) if on}
        assert true_sounds(truth) == heard
