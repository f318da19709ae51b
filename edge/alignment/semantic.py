"""A recording's pictures and sound as a bundle's encoders understand them: embeddings in one space, frame by frame."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge import bundle as bundles
from edge.alignment.methods import Aligned, aligned_embeddings
from edge.alignment.offset import Offset
from edge.alignment.series import Series
from edge.errors import AlignmentError, BundleError
from edge.frameset import EmitReason, FrameSet, Pick
from edge.perception import Perception
from edge.samples import AudioChunk, Frame
from edge.streams import STREAMS

_STREAMS: Final = tuple(stream for stream in STREAMS if stream.name in ("camera", "audio"))
_WINDOW_NS: Final = _STREAMS[1].window_ns
_STAMP: Final = attrgetter("stamp_ns")


class Embeddings:
    """Encodes each picture as it comes, and the sound before each instant once a stretch is aligned.

    Args:
        bundle: its folder; None: the reference bundle.

    Raises:
        BundleError: it has no embeddings of camera and sound in one space.
    """

    def __init__(self, bundle: Path | None, max_lag_ns: int) -> None:
        self._max_lag_ns = max_lag_ns
        self._perception = Perception(bundles.load(bundle), _STREAMS)
        self._outputs = {name: self._output(name) for name in ("camera", "audio")}
        widths = {name: output.size for name, output in self._outputs.items()}
        if len(set(widths.values())) != 1:
            raise BundleError(f"{self._perception.bundle.path}: expected embeddings in one space, got widths {widths}")
        self._stretches: list[list[tuple[int, NDArray[np.float32]]]] = []
        self._sound: list[list[AudioChunk]] = []  # runs of blocks, until their clock went back

    def see(self, frame: Frame, *, begins: bool) -> None:
        """Takes a picture in colour; `begins`: it is the first of its stretch."""
        if begins:
            self._stretches.append([])
        rows = self._stretches[-1]
        if not rows or frame.stamp_ns > rows[-1][0]:
            rows.append((frame.stamp_ns, self._encoded("camera", frame.stamp_ns, frame, ())))

    def hear(self, chunk: AudioChunk, *, begins: bool) -> None:
        """Takes a block of sound; one that is not later than its run's last is left out."""
        if begins:
            self._sound.append([chunk])
        elif chunk.stamp_ns > self._sound[-1][-1].stamp_ns:
            self._sound[-1].append(chunk)

    def align(self, number: int) -> tuple[Offset, Aligned | None]:
        """Of a stretch, by its number; embeddings have no signals to show.

        Raises:
            AlignmentError: too few frames with sound.
        """
        camera = self._stretches[number]
        stamps_ns = [stamp_ns for stamp_ns, _ in camera]
        runs = ([(at, chunks) for at in stamps_ns if (chunks := _before(run, at))] for run in self._sound)
        heard = max(runs, key=len)
        if not heard:
            raise AlignmentError("sound: expected some before a picture, got none")
        audio = [self._encoded("audio", at, None, chunks) for at, chunks in heard]
        pictures = Series(np.array(stamps_ns), np.stack([row for _, row in camera]))
        return aligned_embeddings(pictures, Series(np.array([at for at, _ in heard]), np.stack(audio)),
                                  self._max_lag_ns), None  # fmt: skip

    def _encoded(
        self, name: str, stamp_ns: int, frame: Frame | None, chunks: list[AudioChunk] | tuple[()]
    ) -> NDArray[np.float32]:
        frames = FrameSet(stamp_ns, frame, 0, stamp_ns, EmitReason.SETTLED, [Pick(chunks, 0, "")])
        self._perception.encode(name, frames)
        return self._outputs[name].copy()

    def _output(self, name: str) -> NDArray[np.float32]:
        bundle = self._perception.bundle
        tensor = bundle.encoders[name].outputs.get("embedding") if name in bundle.encoders else None
        if tensor is None:
            raise BundleError(f"{bundle.path}: expected an embedding of {name}, got none")
        return self._perception.encoders[name].outputs[tensor].reshape(-1)


def _before(run: list[AudioChunk], stamp_ns: int) -> list[AudioChunk]:
    """The blocks of the window that ends at an instant."""
    low, high = (bisect_left(run, at, key=_STAMP) for at in (stamp_ns - _WINDOW_NS, stamp_ns))
    return run[low:high]
