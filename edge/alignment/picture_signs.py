"""Vital signs of the camera, from a small grey picture: is it alive, lit, in focus, and clean all over?

Frozen and badly exposed pictures tell by themselves. A lens out of focus leaves broad contrasts and takes the fine
ones. Dirt takes detail from a part of the picture, at once and for good, while the rest keeps its own: the detail of
each cell before an instant is compared with that after it, so darkness, fog and rain, which come over all of it, are
no dirt.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
KINDS: Final = ("frozen", "exposure", "blurred", "dirty")
COLUMNS: Final = 20  # of cells in which detail is compared
ROWS: Final = 12
CELLS: Final = COLUMNS * ROWS
_WHITE: Final = 248  # grey levels from which a pixel is saturated
_LIT: Final = 110.0  # mean grey level, below which not half of the picture can be saturated
_DARK: Final = 8.0  # mean grey level of a picture in which nothing can be seen
_FAST_S: Final = 0.3
_SLOW_S: Final = 5.0
_HALTED: Final = 0.1  # how fast the healthy state is still learned while the camera is suspected
_TEXTURED: Final = 24  # cells with the most contrast, which show the focus
_BLOCK_S: Final = 0.25  # detail is averaged over this long
_BLOCKS: Final = 7  # 3 before, 1 in which it may have happened, 3 after
_NOISE: Final = np.float32(0.1)  # grey levels of fine contrast that say nothing
_VISIBLE: Final = np.float32(np.log(0.8))  # log grey levels of fine contrast that dirt would take
_FALL: Final = np.float32(0.35)  # of log contrast, from which a cell begins to count as fallen
_RISE: Final = np.float32(0.1)
_KEPT: Final = 0.65  # of what fell, that must stay so
_FALL_SPAN: Final = np.float32(0.6)  # to there, where it counts in full
SPLASH: Final = 0.13  # share of fallen cells, less half of the risen ones, from which it is dirt
_LEAST_CELLS: Final = 150  # that can fall, or the share of fallen ones is not told
_REMEMBERED_S: Final = 30.0  # how long dirt is remembered that no longer shows as a change
_MOST_S: Final = 60.0


class PictureSigns:
    """What successive pictures say of the camera. All attributes are state.

    Attributes:
        measures: in the order of KINDS: seconds without any change; 1 too bright or too dark, by how much; how much
            finer contrasts are missing, log; share of the cells that lost their detail, less half of those that
            gained some.
    """

    def __init__(self) -> None:
        self.measures = [0.0] * len(KINDS)
        self._last: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self._seen_s = self._still_s = self._unfocused_s = 0.0
        self._odd = False
        self._sharp = self._usual_sharp = 0.0
        self._sum = np.zeros(CELLS, np.float32)  # log fine contrast of the block that runs, by cell
        self._sum_s = 0.0
        self._summed = 0
        self._blocks = np.zeros((_BLOCKS, CELLS), np.float32)  # oldest first
        self._full = 0
        self._clean = np.zeros(CELLS, np.float32)  # what the cells were before the dirt
        self._fallen = np.zeros(CELLS, np.float32)  # how much each of them is part of it, together 1
        self._dirty_s = 0.0  # since then; 0: clean

    def see(self, small: NDArray[np.uint8], elapsed_s: float, suspected: bool) -> None:
        """Take the next picture.

        Args:
            small: (rows, columns) grey; another size than before begins anew.
            elapsed_s: since the last one.
            suspected: the camera is, so its healthy state is hardly learned.
        """
        if self._last.shape != small.shape:
            PictureSigns.__init__(self)
            self._last = np.zeros_like(small)
            elapsed_s = 0.0
        same = elapsed_s > 0.0 and cv2.norm(small, self._last, cv2.NORM_INF) == 0.0
        np.copyto(self._last, small)
        self._still_s = min(self._still_s + elapsed_s, _MOST_S) if same else 0.0
        soft = cv2.boxFilter(small, cv2.CV_32F, (3, 3))
        fine = _by_cell(cv2.absdiff(small.astype(np.float32), soft))
        if self._still_s == 0.0:  # a frozen picture says nothing new
            self._add(fine, elapsed_s)
        self._unfocused_s += elapsed_s
        self._odd = not self._odd
        if self._odd:  # every other picture is often enough for the focus
            coarse = _by_cell(cv2.absdiff(soft, cv2.blur(soft, (7, 7))))
            self._focus(fine, coarse, self._unfocused_s, suspected)
            self._unfocused_s = 0.0
        mean = cv2.mean(small)[0]
        white = np.count_nonzero(small >= _WHITE) / small.size if mean > _LIT else 0.0
        blur = self._sharp + min(max(self._sharp - self._usual_sharp, -0.4), 0.0)
        self.measures[:3] = self._still_s, max(white, 0.5 * _DARK / max(mean, 0.5)), -blur
        self._seen_s = min(self._seen_s + elapsed_s, _MOST_S)

    def _focus(self, fine: F32, coarse: F32, elapsed_s: float, suspected: bool) -> None:
        """How fine the contrasts are where there are the most, and how fine they usually were; logs."""
        shown = np.argpartition(coarse, CELLS - _TEXTURED)[CELLS - _TEXTURED :]
        sharp = float(np.log((fine[shown].sum() + _NOISE) / (coarse[shown].sum() + _NOISE)))
        if self._seen_s == 0.0:
            self._sharp = self._usual_sharp = sharp
        self._sharp += elapsed_s / (_FAST_S + elapsed_s) * (sharp - self._sharp)
        learned = elapsed_s / (min(_SLOW_S, self._seen_s) + elapsed_s + 1e-9) * (_HALTED if suspected else 1.0)
        self._usual_sharp += learned * (sharp - self._usual_sharp)

    def _add(self, fine: F32, elapsed_s: float) -> None:
        """Add to the block that runs; where it is full, compare."""
        self._sum += np.log(fine + _NOISE)
        self._summed += 1
        self._sum_s += elapsed_s
        if self._sum_s < _BLOCK_S - 1e-3:
            return
        self._blocks[:-1] = self._blocks[1:]
        np.multiply(self._sum, np.float32(1.0 / self._summed), out=self._blocks[-1])
        self._sum[:] = 0.0
        self._sum_s, self._summed = 0.0, 0
        self._full = min(self._full + 1, _BLOCKS)
        self.measures[3] = self._dirt()

    def _dirt(self) -> float:
        """Share of the cells whose detail fell between three blocks and the last three, or fell before and stays so.

        Where others gained detail, the scene changed: they count against it.
        """
        after = self._blocks[4:]
        held = 0.0
        if self._dirty_s:
            self._dirty_s += _BLOCK_S
            kept = float(_falls(self._clean, after.max(0)).dot(self._fallen))
            held = SPLASH if kept > _KEPT and self._dirty_s < _REMEMBERED_S else 0.0
        if self._full == _BLOCKS:
            before = self._blocks[:3]
            low = before.min(0)
            falls = _falls(low, after.max(0))
            rises = np.clip((after.mean(0) - before.mean(0) - _RISE) / _FALL_SPAN, 0.0, 1.0)
            fallen = float(falls.sum())
            share = (fallen - 0.5 * float(rises.sum())) / max(int(np.count_nonzero(low > _VISIBLE)), _LEAST_CELLS)
            if share >= SPLASH and not held:
                self._clean[:] = low
                np.divide(falls, fallen, out=self._fallen)
                self._dirty_s = _BLOCK_S
            held = max(held, share)
        if not held:
            self._dirty_s = 0.0
        return held


def _falls(before: F32, after: F32) -> F32:
    """(CELLS,) 0..1, how far each lost its detail beyond what all of the picture lost."""
    fall = before - after
    fall -= max(_median(fall), np.float32(0.0)) + _FALL
    fall /= _FALL_SPAN
    return np.clip(fall, 0.0, 1.0, out=fall)


def _median(values: F32) -> np.float32:
    """The upper one of an even number, four times as fast as numpy's."""
    middle: np.float32 = np.partition(values, CELLS // 2)[CELLS // 2]
    return middle


def _by_cell(values: NDArray[np.float32] | cv2.typing.MatLike) -> F32:
    """(CELLS,) means."""
    return np.asarray(cv2.resize(values, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA), np.float32).ravel()
