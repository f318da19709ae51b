"""Detectors that look at pictures and listen to sound for redaction alone: the engines of any bundle that fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.bundle_check import check_encoder
from edge.decoders import DECODERS, check_objects
from edge.engines import engine_opener
from edge.errors import BundleError
from edge.image_input import ImageInput
from edge.redaction.hearing import HEARD_NS, MARGIN_NS, SPEECH, Spans
from edge.redaction.regions import Box, kind_of
from edge.samples import AudioChunk
from edge.streams import SECOND
from edge.windows import SoundWindows

_DOUBTS: Final = 0.4  # of the threshold that the bundle itself counts from: here a miss costs more than a mistake
_TILES_FROM: Final = 1.2  # a picture so many times as wide as the model's input is looked at in tiles too
_MAX_TILES: Final = 4  # along the width
_TILE_OVERLAP: Final = 0.15


class Looker:
    """Finds things in pictures with a bundle's camera engine.

    Raises:
        BundleError: the bundle finds nothing that is covered.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._labels = bundle.heads.get("objects", ())
        if "camera" not in bundle.encoders or not any(kind_of(label) for label in self._labels):
            raise BundleError(
                f"{bundle.path}: expected a bundle that finds faces, plates, people or vehicles in pictures, "
                f"got {', '.join(self._labels) or 'no objects'}"
            )
        spec = bundle.encoders["camera"]
        self.id = bundle.id
        self._engine = engine_opener(bundle, "cpu")("camera", {})
        check_encoder("camera", spec, self._engine.inputs, self._engine.outputs)
        check_objects(
            spec.path, spec.decoder, self._engine.outputs, spec.outputs, len(self._labels),
            bool(bundle.head_specs["objects"].kinds),
        )  # fmt: skip
        self._input = ImageInput(self._engine.inputs[spec.input["name"]], spec.input)
        self._width_px = int(spec.input["width_px"])
        self._spec = spec
        self._threshold = _DOUBTS * float(bundle.thresholds.get("objects", 0.5))

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """Boxes in a (height, width, 3) BGR picture, px; in large pictures tile by tile too, for small things."""
        found = []
        for left, top, right, bottom in _tiles(image.shape[1], image.shape[0], self._width_px):
            width, height = right - left, bottom - top
            self._input.fill(image[top:bottom, left:right])
            self._engine.run()
            for row in DECODERS[self._spec.decoder](self._engine.outputs, self._spec.outputs, self._threshold):
                which, x, y, w, h = row[0], *row[2:6]
                if 0 <= which < len(self._labels):
                    x, y = left + x * width, top + y * height
                    found.append(Box(self._labels[int(which)], x, y, x + w * width, y + h * height))
        return found


class Listener:
    """Finds voices in a stream of sound with a bundle's sound engine that hears it step by step.

    Raises:
        BundleError: the bundle does not listen for voices so.
    """

    def __init__(self, bundle: Bundle) -> None:
        labels = bundle.heads.get("sound_events", ())
        spec = bundle.encoders.get("audio")
        self._speech = [at for at, label in enumerate(labels) if label in SPEECH]
        if spec is None or "hop" not in spec.input or not self._speech or "sound_events" not in spec.outputs:
            raise BundleError(
                f"{bundle.path}: expected a bundle that hears speech step by step, "
                f"got {', '.join(labels) or 'no sound events'}"
            )
        self.id = bundle.id
        self._engine = engine_opener(bundle, "cpu")("audio", {})
        check_encoder("audio", spec, self._engine.inputs, self._engine.outputs)
        buffer = self._engine.inputs[spec.input["name"]].reshape(-1)
        self._windows = SoundWindows(buffer, spec.input["rate_hz"], spec.input["hop"])
        self._said = self._engine.outputs[spec.outputs["sound_events"]].reshape(-1)
        said = bundle.thresholds.get("sound_events", 0.5)
        least = [float(said[at]) for at in self._speech] if isinstance(said, list) else [float(said)]
        self._threshold = _DOUBTS * min(least)

    def hear(self, chunk: AudioChunk, spans: Spans) -> None:
        """Take the next block of sound; where it holds a voice goes into `spans`."""
        if self._windows.take([chunk]):
            self._engine.reset()
        likeliest = 0.0
        while self._windows.step():
            self._engine.run()
            self._engine.advance()
            likeliest = max(likeliest, *(float(self._said[at]) for at in self._speech))
        if not likeliest < self._threshold:  # NaN is not less either
            end_ns = chunk.stamp_ns + len(chunk.pcm) * SECOND // chunk.rate_hz
            spans.add(chunk.stamp_ns - 2 * MARGIN_NS, end_ns + MARGIN_NS)


def heard_by_loop(stamp_ns: int) -> tuple[int, int]:
    """The time in which a voice may be that a decision of this instant speaks of."""
    return stamp_ns - HEARD_NS - MARGIN_NS, stamp_ns + MARGIN_NS


def _tiles(width: int, height: int, wanted: int) -> Iterator[tuple[int, int, int, int]]:
    """The whole picture, then tiles of it where it is much larger than the model's input."""
    yield 0, 0, width, height
    if width < _TILES_FROM * wanted:
        return
    count = min(max(round(width / (1.5 * wanted)), 2), _MAX_TILES)
    wide, high = int(width / count * (1 + _TILE_OVERLAP)), int(height / count * (1 + _TILE_OVERLAP))
    for row in range(count):
        for column in range(count):
            left, top = column * (width - wide) // (count - 1), row * (height - high) // (count - 1)
            yield left, top, left + wide, top + high
