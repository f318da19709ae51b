"""FrameSets by hand: a picture, some sound, some motion at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.frameset import EmitReason, FrameSet, Pick
from edge.samples import AudioChunk, Frame
from edge.streams import SECOND, STREAMS

START_NS = 1_000 * SECOND


def frame_set(image: NDArray[np.uint8] | None = None, stamp_ns: int = START_NS, **samples: Sequence[Any]) -> FrameSet:
    """A FrameSet of a picture and the samples of streams by name."""
    picks = [
        Pick(samples[stream.name], 0, "") if samples.get(stream.name) else Pick((), 0, "silent")
        for stream in STREAMS[1:]
    ]
    frame = None if image is None else Frame(stamp_ns, 0, image)
    return FrameSet(stamp_ns, frame, 0, stamp_ns, EmitReason.SETTLED, picks, "" if frame else "silent")


def sounds(pcm: NDArray[np.int16], rate_hz: int, chunk: int, start_ns: int = START_NS) -> list[AudioChunk]:
    """Sound in chunks, as a microphone gives them."""
    return [
        AudioChunk(start_ns + at * SECOND // rate_hz, at // chunk, rate_hz, pcm[at : at + chunk])
        for at in range(0, len(pcm), chunk)
    ]


def picture(path: Path) -> NDArray[np.uint8]:
    """A picture file, BGR."""
    image = cv2.imread(str(path))
    assert image is not None, path
    return image.astype(np.uint8)
