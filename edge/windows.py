"""Sound in consecutive windows, for models that hear a stream step by step and carry their own state.

Such a model gets every sample once and in order, however the camera's frames fall: at each frame it is stepped over the
windows that became whole since the last one. A frame's sound overlaps the last frame's; stamps tell what is new. Lost
sound is silence of its length, and after more of it than `MAX_GAP_NS` the stream begins anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import FULL_SCALE, nearest, resampled
from edge.samples import AudioChunk
from edge.streams import SECOND

MAX_GAP_NS: Final = SECOND
_UNHEARD: Final = -(1 << 62)
_STAMP: Final = attrgetter("stamp_ns")


class SoundWindows:
    """The input of one sound engine.

    Args:
        out: (samples,) float32, -1..1, at `rate_hz`; each step moves it on by `hop` samples.
        rate_hz: that the model wants; whole chunks of other rates are resampled window by window.
        hop: new samples a step; the rest of `out` is the end of the last step's.
    """

    def __init__(self, out: NDArray[np.float32], rate_hz: int, hop: int) -> None:
        self._out = out
        self._rate_hz = rate_hz
        self._hop = hop
        self._pcm: NDArray[np.int16]  # at the source's rate, not yet stepped over
        self.reset()

    def reset(self) -> None:
        """Begin as if nothing had been heard."""
        self._begin_anew(0)
        self._last_ns = _UNHEARD  # stamp of the newest chunk that was taken
        self._end_ns = _UNHEARD  # where its sound ends
        self._next_seq = 0

    def take(self, chunks: Sequence[AudioChunk]) -> bool:
        """Add the sound of a FrameSet that is not yet known; True where the stream begins anew with it."""
        anew = False
        for chunk in chunks[bisect_right(chunks, self._last_ns, key=_STAMP) :]:
            lost = nearest(chunk.stamp_ns - self._end_ns, chunk.rate_hz)
            if chunk.rate_hz != self._source_hz or lost > nearest(MAX_GAP_NS, chunk.rate_hz):
                self._begin_anew(chunk.rate_hz)
                anew = True
            elif lost > 0 and chunk.seq != self._next_seq:
                self._pcm = np.concatenate((self._pcm, np.zeros(lost, dtype=np.int16)))
            self._pcm = np.concatenate((self._pcm, chunk.pcm))
            self._last_ns = chunk.stamp_ns
            self._end_ns = chunk.stamp_ns + len(chunk.pcm) * SECOND // chunk.rate_hz
            self._next_seq = chunk.seq + 1
        return anew

    def step(self) -> bool:
        """Move the input on by one window; False where none is whole."""
        first = self._steps * self._hop * self._source_hz // self._rate_hz
        count = (self._steps + 1) * self._hop * self._source_hz // self._rate_hz - first
        if not count or len(self._pcm) < count:
            return False
        fresh: NDArray[Any] = self._pcm[:count]
        if count != self._hop:
            fresh = resampled(fresh, self._hop)
        self._out[: -self._hop] = self._out[self._hop :]
        np.multiply(fresh, FULL_SCALE, out=self._out[-self._hop :], casting="unsafe")
        self._pcm = self._pcm[count:]
        self._steps += 1
        return True

    def freeze(self) -> tuple[Any, ...]:
        """All that the next frame needs."""
        clocks = (self._source_hz, self._steps, self._last_ns, self._end_ns, self._next_seq)
        return (*clocks, self._pcm.tobytes(), self._out.tobytes())

    def thaw(self, frozen: tuple[Any, ...]) -> None:
        """Take a frozen state."""
        *clocks, pcm, out = frozen
        self._source_hz, self._steps, self._last_ns, self._end_ns, self._next_seq = clocks
        self._pcm = np.frombuffer(pcm, dtype=np.int16)
        self._out[...] = np.frombuffer(out, dtype=np.float32)

    def _begin_anew(self, source_hz: int) -> None:
        self._source_hz = source_hz
        self._steps = 0  # since the stream began
        self._pcm = np.zeros(0, dtype=np.int16)
        self._out[...] = 0.0
