"""Vital signs of the microphone: how loud it is, how much of that is below 25 Hz, how much is cut off.

Engines, tyres and voices have little below 25 Hz; wind on the membrane has little else. Only new blocks are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.samples import AudioChunk

KINDS: Final = ("dead", "wind", "clipping")
_LEVEL_S: Final = 0.1
_SHARE_S: Final = 0.3
_LOW_HZ: Final = 50  # means over this part of a second leave what is below half of it
_LOUD: Final = 4e-4  # mean square, full scale 1 (-34 dB): below it wind does no harm
_CUT: Final = 32_600  # of int16
_FULL_SCALE: Final = 32_768.0
_SILENCE: Final = 1e-10  # mean square that keeps the logarithm finite
_UNHEARD: Final = -(1 << 62)
_GAP_NS: Final = 2_000_000_000


class SoundSigns:
    """What successive blocks say of the microphone. All attributes are state.

    Attributes:
        measures: in the order of KINDS: dB below full scale; share of the power that is low; share of samples cut off.
    """

    def __init__(self) -> None:
        self.measures = [0.0] * len(KINDS)
        self._last_ns = _UNHEARD
        self._heard = False
        self._level = self._power = self._low = self._cut = 0.0

    def hear(self, chunks: Sequence[AudioChunk]) -> None:
        """Take those of a window that are new."""
        if chunks and chunks[-1].stamp_ns < self._last_ns - _GAP_NS:
            self._last_ns = _UNHEARD  # the clock stepped back
        first = len(chunks)
        while first and chunks[first - 1].stamp_ns > self._last_ns:
            first -= 1
        fresh = chunks[first:] if self._heard else chunks[-1:]
        if fresh:
            self._last_ns = fresh[-1].stamp_ns
            for rate_hz in dict.fromkeys([chunk.rate_hz for chunk in fresh]):  # one, but where the source changes it
                self._take([chunk.pcm for chunk in fresh if chunk.rate_hz == rate_hz], rate_hz)
        loud = self._low > _LOUD
        self.measures[:] = (
            -10.0 * float(np.log10(self._level + _SILENCE)) if self._heard else 0.0,
            self._low / (self._power + _SILENCE) if loud else 0.0,
            self._cut,
        )

    def _take(self, blocks: Sequence[NDArray[np.int16]], rate_hz: int) -> None:
        pcm = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        count, block = len(pcm), rate_hz // _LOW_HZ
        if block <= 0 or count < block:
            return
        wave = pcm.astype(np.float32)
        wave /= np.float32(_FULL_SCALE)
        power = float(np.dot(wave, wave)) / count
        means = wave[: count - count % block].reshape(-1, block).sum(1) / block
        low = float(np.dot(means, means)) / len(means)
        loudest = max(int(pcm.max()), -int(pcm.min()))
        cut = np.count_nonzero(np.abs(wave) >= _CUT / _FULL_SCALE) / count if loudest >= _CUT else 0.0
        seconds = count / rate_hz
        quick = seconds / (_LEVEL_S + seconds) if self._heard else 1.0
        slow = seconds / (_SHARE_S + seconds) if self._heard else 1.0
        self._heard = True
        self._level += quick * (power - self._level)
        self._power += slow * (power - self._power)
        self._low += slow * (low - self._low)
        self._cut += slow * (cut - self._cut)
