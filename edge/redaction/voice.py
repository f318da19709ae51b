"""Takes the words out of sound, and leaves what it sounds like from afar: its loudness by pitch, four times a second.

Where somebody may be speaking, the sound is replaced by noise that has the same energy in each third of an octave,
taken over half a second every quarter of a second with lines between. Words are changes of 2 to 16 Hz in those bands:
they are not in the result, and no filter brings them back. Everywhere else the samples stay as they are.

All is a function of the samples' place in the sound, never of how they were cut into messages.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
STEP_S: Final = 0.25  # between the energies that are kept
_FRAME_S: Final = 0.032  # of the noise that is shaped
_LOWEST_HZ: Final = 50.0
_BANDS_AN_OCTAVE: Final = 3
_FLOOR: Final = 1e-12
_NOISE_BLOCK: Final = 1 << 14
_FADE_S: Final = 0.016  # from the sound as it was to what replaces it


class Disguise:
    """What replaces the sound of one stretch without holes.

    Args:
        rate_hz: of the samples.
        seed: of the noise.
    """

    def __init__(self, rate_hz: int, seed: int) -> None:
        self._rate_hz, self._seed = rate_hz, seed
        self.step = max(int(rate_hz * STEP_S), 2)  # samples
        self._frame = max(2 * int(rate_hz * _FRAME_S / 2), 4)
        # What is read around a stretch, so that it comes out the same however it is cut.
        self.context = 2 * self.step + self._frame
        self._noise: dict[int, F32] = {}

    def replaced(self, pcm: F32, origin: int, first: int, last: int) -> F32:
        """Noise like the sound, for samples first..last.

        Args:
            pcm: samples from `origin` on, at least `context` around what is asked for where there are any; beyond it is
                silence.
            origin, first, last: places in the stretch.

        Returns:
            (last - first,) float32 in the scale of `pcm`.
        """
        half = self._frame // 2
        first_frame, last_frame = first // half - 1, -(-last // half)
        grid = range((first_frame * half) // self.step, (last_frame * half + self._frame) // self.step + 2)
        densities = np.stack([self._density(pcm, origin, at * self.step) for at in grid])
        out = np.zeros((last_frame - first_frame + 2) * half, np.float32)
        window = _window(self._frame)
        for frame in range(first_frame, last_frame + 1):
            middle = frame * half + half
            at, rest = divmod(middle - grid[0] * self.step, self.step)
            share = rest / self.step
            gains = (1.0 - share) * densities[at] + share * densities[at + 1]
            noise = np.fft.rfft(window * self._noise_at(frame * half, self._frame))
            begin = (frame - first_frame) * half
            out[begin : begin + self._frame] += window * np.fft.irfft(noise * gains, self._frame).astype(np.float32)
        start = first - first_frame * half
        return out[start : start + last - first]

    def _density(self, pcm: F32, origin: int, middle: int) -> NDArray[np.float64]:
        """Amplitude for each frequency of a frame of unit noise, from the half second around `middle`."""
        size = 2 * self.step
        part = np.zeros(size, np.float64)
        first = middle - self.step - origin
        low, high = max(first, 0), min(first + size, len(pcm))
        if low < high:
            part[low - first : high - first] = pcm[low:high]
        window, edges, places = _analysis(size, self._rate_hz)
        power = np.abs(np.fft.rfft(part * window)) ** 2
        sums = np.add.reduceat(power, edges[:-1])
        # By Parseval: white noise of unit variance has a power of sum(window^2) at each frequency.
        bands = sums / (np.diff(edges) * np.sum(window**2))
        wanted = np.fft.rfftfreq(self._frame, 1.0 / self._rate_hz)
        return np.asarray(np.sqrt(np.interp(wanted, places, bands + _FLOOR)))

    def _noise_at(self, first: int, count: int) -> F32:
        blocks = range(first // _NOISE_BLOCK, (first + count - 1) // _NOISE_BLOCK + 1)
        for block in list(self._noise):
            if block not in blocks:
                del self._noise[block]
        for block in blocks:
            if block not in self._noise:
                rng = np.random.default_rng((self._seed, block + (1 << 40)))
                self._noise[block] = rng.standard_normal(_NOISE_BLOCK).astype(np.float32)
        whole = np.concatenate([self._noise[block] for block in blocks])
        start = first - blocks[0] * _NOISE_BLOCK
        part: F32 = whole[start : start + count]
        return part


def faded(mask: NDArray[np.bool_], rate_hz: int) -> F32:
    """How much of each sample is replaced: 1 where the mask says so, falling to 0 beside it, never inside."""
    ramp = max(int(rate_hz * _FADE_S), 1)
    padded = np.pad(mask.astype(np.float32), ramp)
    sums = np.concatenate(([0.0], np.cumsum(padded, dtype=np.float64)))
    # Widened by half the ramp on each side, then averaged over it: stays 1 all over the mask.
    wide = (sums[ramp + 1 :] - sums[: -ramp - 1]) > 0.5
    soft = np.concatenate(([0.0], np.cumsum(wide, dtype=np.float64)))
    mean = (soft[ramp:] - soft[:-ramp]) / ramp
    start = (len(mean) - len(mask)) // 2
    share: F32 = mean[start : start + len(mask)].astype(np.float32)
    return share


@lru_cache(maxsize=8)
def _window(size: int) -> F32:
    """Its square, overlapped by half, is 1 everywhere."""
    window: F32 = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    return window


@lru_cache(maxsize=8)
def _analysis(size: int, rate_hz: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Window, first bins of the bands (and the end of the last), and the bands' middles, Hz."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    bin_hz = rate_hz / size
    octaves = np.log2(max(rate_hz / 2 / _LOWEST_HZ, 2.0))
    count = int(np.ceil(octaves * _BANDS_AN_OCTAVE))
    tops = _LOWEST_HZ * 2.0 ** (np.arange(count) / _BANDS_AN_OCTAVE)
    edges = np.unique(np.concatenate(([0], np.rint(tops / bin_hz).astype(np.int64), [size // 2 + 1])))
    edges = edges[edges <= size // 2 + 1]
    places = (edges[:-1] + edges[1:] - 1) / 2 * bin_hz
    return window, edges, places
