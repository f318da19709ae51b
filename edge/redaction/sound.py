"""Redacts the sound of one channel, block by block, in the order in which it is recorded.

Blocks whose stamps follow each other are one stretch; where they do not (lost, late, doubled), another one begins. What
is covered of a stretch hangs on the sound before and behind, so it comes out later than it goes in, never otherwise.
"""

from __future__ import annotations

from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import FULL_SCALE
from edge.redaction import tones
from edge.redaction.hearing import Spans, reach, voiced
from edge.redaction.voice import Disguise, faded
from edge.streams import SECOND

BLOCK_S: Final = 4.0
_JITTER_NS: Final = 5_000_000
_FADE_REACH_S: Final = 0.05
_FULL: Final = 32767.0


class SoundRedaction:
    """One channel's sound.

    Args:
        spans: in which a voice is known to be.
        out: takes the samples as they leave: int16, little-endian, the channels of a sample side by side.

    Attributes:
        covered_s: seconds that were replaced.
        heard_s: seconds of sound.
    """

    def __init__(self, spans: Spans, out: BinaryIO) -> None:
        self._spans, self._out = spans, out
        self.covered_s = self.heard_s = 0.0
        self._rate_hz = self._channels = 0
        self._next_ns = -1

    def take(self, pcm: NDArray[np.int16], stamp_ns: int, rate_hz: int) -> None:
        """The next block: (samples, channels)."""
        follows = abs(stamp_ns - self._next_ns) <= _JITTER_NS
        if not follows or (rate_hz, pcm.shape[1]) != (self._rate_hz, self._channels):
            self.finish()
            self._begin(stamp_ns, rate_hz, pcm.shape[1])
        self._next_ns = stamp_ns + len(pcm) * SECOND // rate_hz
        known = np.zeros(len(pcm), np.bool_)
        for begin_ns, end_ns in self._spans.within(stamp_ns, self._next_ns):
            begin = (begin_ns - stamp_ns) * rate_hz // SECOND
            known[begin : -(-(end_ns - stamp_ns) * rate_hz // SECOND)] = True
        self._parts.append(pcm)
        self._known.append(known)
        self._end += len(pcm)
        while self._end - self._done >= self._block + self._reach:
            self._emit(self._done + self._block)

    def finish(self) -> None:
        """What is still here leaves."""
        while self._rate_hz and self._done < self._end:
            self._emit(min(self._done + self._block, self._end))
        self._rate_hz = 0

    def _begin(self, stamp_ns: int, rate_hz: int, channels: int) -> None:
        self._rate_hz, self._channels = rate_hz, channels
        self._disguises = [Disguise(rate_hz, stamp_ns + channel) for channel in range(channels)]
        self._block = int(BLOCK_S * rate_hz)
        self._fade = int(_FADE_REACH_S * rate_hz) + 1
        self._reach = max(self._disguises[0].context + tones.context(rate_hz), reach(rate_hz)) + self._fade
        self._parts: list[NDArray[np.int16]] = []
        self._known: list[NDArray[np.bool_]] = []
        self._origin = self._done = self._end = 0  # first sample that is here, next to leave, next to come

    def _emit(self, last: int) -> None:
        """Samples from `done` to `last` leave, whose surroundings are here as far as there are any."""
        pcm, known = np.concatenate(self._parts), np.concatenate(self._known)
        first, origin, rate_hz = self._done, self._origin, self._rate_hz
        sound = pcm.astype(np.float32) * FULL_SCALE
        low, high = max(first - self._fade, 0), min(last + self._fade, self._end)
        speaks = known[low - origin : high - origin]
        for channel in range(self._channels):
            speaks = speaks | voiced(sound[:, channel], origin, low, high, rate_hz)
        share = faded(speaks, rate_hz)[first - low : last - low]
        made = pcm[first - origin : last - origin].copy()
        for begin, end in _runs(share > 0.0):
            part = share[begin:end]
            for channel, disguise in enumerate(self._disguises):
                was = sound[first - origin + begin : first - origin + end, channel]
                other = wordless(disguise, sound[:, channel], origin, first + begin, first + end, rate_hz)
                mixed = (1.0 - part) * was + part * other
                made[begin:end, channel] = np.clip(np.rint(mixed / FULL_SCALE), -_FULL, _FULL).astype(np.int16)
        self._out.write(made.astype("<i2").tobytes())
        self.heard_s += (last - first) / rate_hz
        self.covered_s += float(np.count_nonzero(share)) / rate_hz
        kept = max(last - self._reach, 0)
        self._parts, self._known = [pcm[kept - origin :]], [known[kept - origin :]]
        self._origin, self._done = kept, last


def wordless(
    disguise: Disguise, pcm: NDArray[np.float32], origin: int, first: int, last: int, rate_hz: int
) -> NDArray[np.float32]:
    """Lasting tones of samples first..last, and noise like the rest; arguments as of `Disguise.replaced`."""
    low, high = max(first - disguise.context, origin), min(last + disguise.context, origin + len(pcm))
    kept = tones.tones(pcm, origin, low, high, rate_hz)
    rest = pcm[low - origin : high - origin] - kept
    made: NDArray[np.float32] = disguise.replaced(rest, low, first, last) + kept[first - low : last - low]
    return made


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))
