"""What moves in the picture and what sounds, as signals that can be compared: features of camera-sound alignment.

The picture is cut into square blocks, for whoever makes the sound is somewhere in it and not everywhere. Each block
gives two signals: how bright it is, and how much it changed since the last frame. The sound gives its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.series import Series
from edge.errors import AlignmentError
from edge.samples import AudioChunk

COLUMNS: Final = 30  # of blocks
BLOCK_PX: Final = 6  # of the small picture, in which a moving lip is still more than a block's noise
LEVEL_NS: Final = 10_000_000  # between levels of the sound
SMALL_WIDTH_PX: Final = COLUMNS * BLOCK_PX
WATCHED_WIDTH_PX: Final = 160  # of the picture that the loop watches
_WINDOW_S: Final = 0.025
_SILENCE: Final = 1e-9  # of mean square, full scale 1: keeps the logarithm of silence finite (-90 dB)
_SECOND_NS: Final = 1_000_000_000


class PictureActivity:
    """Collects pictures, in the order of their instants, and gives their blocks' signals."""

    def __init__(self) -> None:
        self._stamps_ns: list[int] = []
        self._light: list[NDArray[np.float32]] = []
        self._change: list[NDArray[np.float32]] = []
        self._small: NDArray[np.uint8] | None = None

    def see(self, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Takes the next picture, (height, width, 3) BGR or (height, width) grey; one that is not later is left out."""
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            return
        small = shrunk(image)
        before = self._small
        if before is None or before.shape != small.shape:
            for rows in (self._stamps_ns, self._light, self._change):
                rows.clear()
            before = small
        self._change.append(_blocks(np.asarray(cv2.absdiff(small, before), np.uint8)))
        self._light.append(_blocks(small))
        self._stamps_ns.append(stamp_ns)
        self._small = small

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of blocks.

        Raises:
            AlignmentError: no picture was seen.
        """
        if not self._light:
            raise AlignmentError("camera: expected at least 3 pictures, got 0")
        rows, columns = self._light[0].shape
        return rows, columns

    def light(self) -> Series:
        """Mean brightness of each block, 0..255, (n, blocks)."""
        return self._series(0, np.array(self._stamps_ns), self._light)

    def change(self) -> Series:
        """Logarithm of each block's mean absolute change, (n - 1, blocks), at the middle between two pictures."""
        stamps = np.array(self._stamps_ns)
        found = self._series(1, (stamps[1:] + stamps[:-1]) // 2, self._change)
        return Series(found.stamps_ns, np.log1p(found.values))

    def _series(self, first: int, stamps_ns: NDArray[np.int64], rows: list[NDArray[np.float32]]) -> Series:
        if len(rows) < 3:
            raise AlignmentError(f"camera: expected at least 3 pictures, got {len(rows)}")
        return Series(stamps_ns, np.stack(rows[first:]).reshape(len(rows) - first, -1).astype(np.float64))


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, COLUMNS blocks wide, the height whole blocks."""
    height, width = image.shape[:2]
    rows = max(round(height * COLUMNS / width), 1)
    size = (SMALL_WIDTH_PX, rows * BLOCK_PX)
    return np.asarray(cv2.resize(_halved(image, SMALL_WIDTH_PX), size, interpolation=cv2.INTER_AREA), np.uint8)


def small_grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(height, width[, 3]) BGR or grey as grey, WATCHED_WIDTH_PX wide."""
    grey = _halved(picture, WATCHED_WIDTH_PX)
    height, width = grey.shape
    rows = max(round(height * WATCHED_WIDTH_PX / width), 1)
    return np.asarray(cv2.resize(grey, (WATCHED_WIDTH_PX, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _halved(picture: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    """As grey, halved while it stays `width_px` wide: four times as fast as one step by a fraction."""
    grey = np.asarray(picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = grey.shape
    while width >= 2 * width_px and height >= 2:
        height, width = height // 2, width // 2
        grey = np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return grey


def _blocks(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = (small.shape[1] // BLOCK_PX, small.shape[0] // BLOCK_PX)
    return np.asarray(cv2.resize(small.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)


def sound_level(chunks: Sequence[AudioChunk]) -> Series:
    """Logarithm of the mean square over 25 ms, every 10 ms, at the window's middle; nothing where sound is missing.

    Args:
        chunks: in the order of their stamps; consecutive ones follow each other without a gap, or leave one.

    Raises:
        AlignmentError: less sound than one window.
    """
    stamps: list[NDArray[np.int64]] = []
    levels: list[NDArray[np.float64]] = []
    for run in _runs(chunks):
        rate_hz = run[0].rate_hz
        pcm = np.concatenate([chunk.pcm for chunk in run]).astype(np.float64) / 32768.0
        window, hop = round(rate_hz * _WINDOW_S), rate_hz * LEVEL_NS / _SECOND_NS
        starts = np.arange(int(max(len(pcm) - window, -1) / hop) + 1) * hop
        begins = np.round(starts[starts + window <= len(pcm)]).astype(np.int64)
        energy = np.concatenate([[0.0], np.cumsum(pcm * pcm)])
        levels.append(np.log((energy[begins + window] - energy[begins]) / window + _SILENCE))
        middle = (2 * begins + window) * _SECOND_NS // (2 * rate_hz)
        stamps.append(run[0].stamp_ns + middle)
    if not sum(map(len, levels)):
        raise AlignmentError(f"sound: expected at least {_WINDOW_S * 1e3:.0f} ms of it, got less")
    return Series(np.concatenate(stamps), np.concatenate(levels))


def _runs(chunks: Sequence[AudioChunk]) -> list[list[AudioChunk]]:
    """Chunks that follow each other, to a quarter of a level's step."""
    runs: list[list[AudioChunk]] = []
    end_ns = -(1 << 62)
    for chunk in chunks:
        if not len(chunk.pcm) or chunk.rate_hz <= 0 or (runs and chunk.stamp_ns < end_ns - LEVEL_NS):
            continue
        follows = runs and chunk.rate_hz == runs[-1][0].rate_hz and chunk.stamp_ns - end_ns <= LEVEL_NS // 4
        if follows:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
        end_ns = chunk.stamp_ns + len(chunk.pcm) * _SECOND_NS // chunk.rate_hz
    return runs
