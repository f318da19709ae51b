"""Jolts of the whole picture, and what they say of the sound's offset: a wheel that hits something shakes and thumps.

The picture's vertical speed is found in cells by least squares of the optical flow. Driving makes flow, too, but it
changes slowly; a jolt changes it everywhere at once, which the weighted median over the cells tells. The size of that
change is correlated with the rises of the sound's level, as `offset` does with what moves in single places. How sure it
is: how far the peak stands above what the same sound reaches when it is moved by seconds, for thumps come at any time.

Ref: Lucas and Kanade, "An iterative image registration technique", IJCAI 1981 (one step of it, in cells).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.activity import BLOCK_PX, shrunk
from edge.alignment.offset import MAX_LAG_NS, STEP_NS, SURROGATES, Evidence, filtered, on_grid, on_grid_heard
from edge.alignment.series import F64, Series
from edge.errors import AlignmentError

F32 = NDArray[np.float32]
CELL_PX: Final = 2 * BLOCK_PX
FAST_S: Final = 0.035  # a jolt is over within a tenth of a second: what is faster is noise of either side
SLOW_S: Final = 0.25
RISE_NS: Final = 15_000_000  # to either side of an instant at which the level rises
ANSWER_NS: Final = 65_000_000  # the middle of the body's jolt after the blow: measured on the world, a car's own matter
LEAST_NS: Final = 4_000_000_000  # beyond the lags: sounds that are moved within less are hardly others
_LAMBDA: Final = 2.0  # grey levels squared a pixel: cells with less slope than this know little of their flow
_ENOUGH: Final = 20.0  # slope from which a cell weighs no more than others
_SECOND_NS: Final = 1_000_000_000


class PictureJolts:
    """Collects pictures, in the order of their instants, and gives how much each jolts."""

    def __init__(self) -> None:
        self._small: F32 | None = None
        self._stamps_ns: list[int] = []
        self._speeds: list[F32] = []
        self._slopes: list[F32] = []

    def see(self, stamp_ns: int, image: NDArray[np.uint8]) -> None:
        """Takes the next picture, (height, width, 3) BGR or (height, width) grey; one that is not later is left out."""
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            return
        small = np.asarray(cv2.GaussianBlur(shrunk(image).astype(np.float32), (0, 0), 1.0), np.float32)
        if self._small is not None and self._small.shape != small.shape:
            for rows in (self._stamps_ns, self._speeds, self._slopes):
                rows.clear()
        elif self._small is not None:
            flow, slope = _vertical_flow(self._small, small)
            self._speeds.append(flow * np.float32(_SECOND_NS / (stamp_ns - self._stamps_ns[-1])))
            self._slopes.append(slope)
        self._stamps_ns.append(stamp_ns)
        self._small = small

    def series(self) -> Series:
        """Size of the change of vertical speed, pixels of the small picture a second, (n - 2, 1), at the instants
        between two speeds.

        Raises:
            AlignmentError: less than four pictures.
        """
        if len(self._stamps_ns) < 4:
            raise AlignmentError(f"camera: expected at least 4 pictures, got {len(self._stamps_ns)}")
        changes = np.diff(np.stack(self._speeds), axis=0)
        slopes = np.stack(self._slopes)
        weights = np.minimum(np.minimum(slopes[1:], slopes[:-1]), _ENOUGH)
        middles = np.convolve(np.array(self._stamps_ns), [1, 2, 1], "valid") // 4
        return Series(middles, np.abs(_weighted_median(changes, weights))[:, None])


def jolt_evidence(jolts: Series, level: Series, max_lag_ns: int = MAX_LAG_NS, seed: int = 0) -> Evidence:
    """Of a stretch of a drive, as `offset.camera_sound_evidence` tells it; it adds up only with its own kind.

    Args:
        jolts: PictureJolts.series.
        level: activity.sound_level.
        seed: of the moves of the sound that it is compared with.

    Raises:
        AlignmentError: too little of both at the same time.
    """
    grid = np.arange(int(jolts.stamps_ns[0]), int(jolts.stamps_ns[-1]) + 1, STEP_NS)
    lags = max_lag_ns // STEP_NS
    first_ns = int(grid[0]) - ANSWER_NS - lags * STEP_NS
    sound, heard = on_grid_heard(_rises(level), first_ns, len(grid) + 2 * lags, FAST_S, SLOW_S)
    if heard.sum() < len(grid) - lags or (len(grid) - 2 * lags) * STEP_NS < LEAST_NS:
        least_s = (LEAST_NS + 2 * lags * STEP_NS) / _SECOND_NS
        raise AlignmentError(
            f"jolts and sound: expected {least_s:g} s of both, got {len(grid) * STEP_NS / _SECOND_NS:.2f} s "
            f"of pictures and {heard.sum() * STEP_NS / _SECOND_NS:.2f} s of sound"
        )
    picture = filtered(on_grid(jolts, grid), FAST_S, SLOW_S)[:, 0]
    turns = np.random.default_rng(seed).integers(2 * lags, len(sound) - 2 * lags, SURROGATES)
    sounds = np.stack([sound, *(np.roll(sound, turn) for turn in turns)])
    scores = np.stack([_correlated(picture, one) for one in sounds]) * (len(grid) * STEP_NS / _SECOND_NS)
    return Evidence(np.arange(-lags, lags + 1) * STEP_NS, scores, scores[:1].astype(np.float32)[None])


def _rises(level: Series) -> Series:
    """How much the level rises about each instant, 0 where it falls: a thump's start, whatever echoes follow it."""
    stamps = level.stamps_ns
    after, before = (np.interp(stamps + side, stamps, level.values[:, 0]) for side in (RISE_NS, -RISE_NS))
    return Series(stamps, np.maximum(after - before, 0.0))


def _vertical_flow(before: F32, after: F32) -> tuple[F32, F32]:
    """(cells,) how far each cell moved down, pixels, and how much vertical slope it has to tell it by."""
    middle, change = 0.5 * (before + after), after - before
    down = cv2.Sobel(middle, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    right = cv2.Sobel(middle, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    size = (before.shape[1] // CELL_PX, before.shape[0] // CELL_PX)
    dd, rr, dr, dt, rt = (
        np.asarray(cv2.resize(product, size, interpolation=cv2.INTER_AREA), np.float32).ravel()
        for product in (down * down, right * right, down * right, down * change, right * change)
    )
    across = rr + _LAMBDA
    determinant = (dd + _LAMBDA) * across - dr * dr
    flow = (dr * rt - across * dt) / determinant
    return flow.astype(np.float32), np.maximum(determinant / across - _LAMBDA, 0.0).astype(np.float32)


def _weighted_median(values: F32, weights: F32) -> F64:
    """(n,) of each row; 0 where nothing weighs."""
    order = np.argsort(values, axis=1)
    risen = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    at = (risen < 0.5 * risen[:, -1:]).sum(axis=1, keepdims=True)
    found = np.take_along_axis(np.take_along_axis(values, order, axis=1), np.minimum(at, values.shape[1] - 1), axis=1)
    return np.where(risen[:, -1] > 0.0, found[:, 0], 0.0).astype(np.float64)


def _correlated(picture: F64, sound: F64) -> F64:
    """(lags,) correlation of the picture's jolts with the sound from each lag on; 0 where nothing sounds."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, len(picture))
    energy = np.maximum((windows * windows).sum(axis=1) * float(picture @ picture), 1e-12)
    return np.asarray((windows @ picture) / np.sqrt(energy), np.float64)
