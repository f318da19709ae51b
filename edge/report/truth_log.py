"""Ground truth by its own instants, kept as columns."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np

from edge.drive.codec import timestamp_ns
from edge.report.history import TruthColumns
from edge.report.truths import SOUNDS, TAGS, true_sounds, true_tags
from roadfuse.v1 import truth_pb2

# Distinct captions kept; what comes after them stands without one.
MAX_SENTENCES: Final = 5000
# The truth gives boxes in pixels and not the picture's height: this is the world's, until a box says that it is more.
_HEIGHT_PX: Final = 384


class TruthLog:
    """Takes ground truths; `finish` gives their columns."""

    def __init__(self) -> None:
        self._stamps = array("q")
        self._tags = {name: array("B") for name in TAGS}
        self._sounds = {name: array("B") for name in SOUNDS}
        self._captions = array("l")
        self._sentences: dict[str, int] = {"": 0}
        self._height_px = _HEIGHT_PX

    def add(self, truth: truth_pb2.GroundTruth) -> None:
        """Take one.

        Raises:
            DriveFormatError: its instant is none.
        """
        self._stamps.append(timestamp_ns(truth.timestamp))
        lowest_px = max((thing.top_px + thing.height_px for thing in truth.objects), default=0.0)
        if self._height_px < lowest_px < 1 << 16:
            self._height_px = int(lowest_px)
        tags, sounds = true_tags(truth, self._height_px), true_sounds(truth)
        for name, column in self._tags.items():
            column.append(name in tags)
        for name, column in self._sounds.items():
            column.append(name in sounds)
        room = len(self._sentences) < MAX_SENTENCES
        number = self._sentences.setdefault(truth.caption, len(self._sentences)) if room else 0
        self._captions.append(self._sentences.get(truth.caption, number))

    def finish(self) -> TruthColumns | None:
        """The columns by stamp; None where there was no truth."""
        if not self._stamps:
            return None
        stamps = np.array(self._stamps, np.int64)
        order = np.argsort(stamps, kind="stable")
        return TruthColumns(
            stamps_ns=stamps[order],
            tags={name: np.array(column, np.bool_)[order] for name, column in self._tags.items()},
            sounds={name: np.array(column, np.bool_)[order] for name, column in self._sounds.items()},
            captions=np.array(self._captions, np.int64)[order],
            sentences=list(self._sentences),
        )
