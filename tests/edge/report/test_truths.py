"""The report holds decisions against the same truth as training does."""

from __future__ import annotations

from pathlib import Path

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.report.truths import SOUNDS, TAGS, true_sounds, true_tags
from export import labels
from roadfuse.v1 import truth_pb2


def test_the_words_are_the_heads() -> None:
    assert labels.SCENE_TAGS == TAGS
    assert labels.SOUND_EVENTS == SOUNDS


def test_a_label_is_true_here_where_it_is_true_in_training(drive: Path) -> None:
    with DriveReader(drive) as messages:
        truths = [truth_pb2.GroundTruth.FromString(m.payload) for m in messages.messages(topics=[topics.TRUTH])]
    assert len(truths) == 80
    for truth in truths:
        taught = labels.tags_of(truth, labels.boxes_of(truth, 640, 384))
        assert true_tags(truth, 384) == {name for name, on in zip(labels.SCENE_TAGS, taught) if on}
        heard = {name for name, on in zip(labels.SOUND_EVENTS, labels.sounds_of(truth)) if on}
        assert true_sounds(truth) == heard
