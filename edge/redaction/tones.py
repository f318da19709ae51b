"""Tones that go on longer than any in speech: sirens, horns, reversing beeps. They are kept where words are taken out.

A partial of a voice breaks off with the next consonant, after a few tenths of a second, is never still, and has its
neighbours within 300 Hz; a siren's glides on, alone. So a tone is kept where a peak of the spectrum, above 350 Hz and
12 dB over what lies around it, can be followed for 0.6 s without a neighbour, or stands still for 0.3 s, no louder and
no quieter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_FRAME_S: Final = 0.040
_HOPS: Final = 4  # a frame
_LOWEST_HZ, _HIGHEST_HZ = 350.0, 6000.0
_LASTS_S: Final = 0.6
_STILL_S: Final = 0.3
_APART_HZ: Final = 300.0  # a voice's overtones are nearer to each other, a siren's further
_MOMENT: Final = 4  # hops of 10 ms
_EVEN: Final = 2.0  # of power
_OWN_HZ: Final = 75.0  # what is nearer is the same peak
_NEIGHBOUR: Final = 0.4  # of the time that a tone lasts
_PROMINENT: Final = 10 ** (12 / 10)
_AROUND_HZ: Final = 400.0  # on each side, that a peak is compared with
_QUIET: Final = 1e-9  # power of a bin that is no tone, of full scale
_GLIDES_HZ: Final = (100.0, 200.0)  # in a hop, below and above 1.5 kHz: a yelp's fundamental and its overtones
_SPLIT_HZ: Final = 1500.0
_WIDTH_HZ: Final = 60.0  # on each side of a peak that is kept with it


def context(rate_hz: int) -> int:
    """Samples around a stretch that `tones` reads."""
    return int((2 * _LASTS_S + 3 * _FRAME_S) * rate_hz)


def tones(pcm: F32, origin: int, first: int, last: int, rate_hz: int) -> F32:
    """The lasting tones of samples first..last.

    Args:
        pcm: -1..1, samples from `origin` on, `context` around what is asked for where there are any.
        origin, first, last: places in the stretch.
    """
    frame = max(int(rate_hz * _FRAME_S) // _HOPS, 1) * _HOPS
    hop = frame // _HOPS
    reach = int(_LASTS_S * rate_hz) // hop + _HOPS
    begin, end = first // hop - _HOPS - reach, -(-last // hop) + 1 + reach
    start = begin * hop - origin
    part = np.zeros((end - begin - 1) * hop + frame, np.float32)
    low, high = max(start, 0), min(start + len(part), len(pcm))
    if low < high:
        part[low - start : high - start] = pcm[low:high]
    window = _window(frame)
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(part, frame)[::hop] * window, axis=1)
    lasts, still = (int(seconds * rate_hz / hop) for seconds in (_LASTS_S, _STILL_S))
    kept = _kept(np.abs(spectra) ** 2 / np.sum(window) ** 2, rate_hz / frame, lasts, still)
    out = np.zeros(len(part), np.float32)
    for at in np.flatnonzero(kept.any(axis=1)).tolist():
        out[at * hop : at * hop + frame] += window * np.fft.irfft(spectra[at] * kept[at], frame).astype(np.float32)
    out *= 2.0 / 3.0  # Hann windows, squared, a quarter apart
    where = first - begin * hop
    return out[where : where + last - first]


def _kept(power: NDArray[np.float64], bin_hz: float, lasts: int, still: int) -> NDArray[np.bool_]:
    """(frames, bins): bins of tones that last, or stand still, for so many frames."""
    bins = power.shape[1]
    around = max(int(_AROUND_HZ / bin_hz), 2)
    log = np.log(power + 1e-20)
    sums = np.cumsum(np.pad(log, ((0, 0), (around + 1, around)), mode="edge"), axis=1)
    usual = np.exp((sums[:, 2 * around + 1 :] - sums[:, : -2 * around - 1]) / (2 * around + 1))
    hz = np.arange(bins) * bin_hz
    peaks = (power > _PROMINENT * usual) & (power > _QUIET) & (hz >= _LOWEST_HZ) & (hz <= _HIGHEST_HZ)
    peaks[:, 1:] &= power[:, 1:] >= power[:, :-1]
    peaks[:, :-1] &= power[:, :-1] >= power[:, 1:]
    glides = [max(int(glide / bin_hz), 1) for glide in _GLIDES_HZ]
    before, after = _followed(peaks, glides, hz), _followed(peaks[::-1], glides, hz)[::-1]
    lengths = np.where(peaks, before + after - 1, 0)
    alone = ~_has_neighbours(lengths >= _NEIGHBOUR * lasts, bin_hz)
    lasting = peaks & (((lengths >= lasts) & alone) | _stands(_widened(peaks, 1) & _is_even(power), still))
    return _widened(lasting, max(int(_WIDTH_HZ / bin_hz), 1))


def _followed(peaks: NDArray[np.bool_], glides: list[int], hz: NDArray[np.floating]) -> NDArray[np.int32]:
    """For each peak, for how many frames up to it one could be followed."""
    lengths = np.zeros(peaks.shape, np.int32)
    low = hz < _SPLIT_HZ
    for at in range(len(peaks)):
        if not peaks[at].any():
            continue
        if at:
            near, far = (_largest_near(lengths[at - 1], glide) for glide in glides)
            lengths[at] = np.where(peaks[at], np.where(low, near, far) + 1, 0)
        else:
            lengths[at] = peaks[at]
    return lengths


def _has_neighbours(followed: NDArray[np.bool_], bin_hz: float) -> NDArray[np.bool_]:
    """Where another peak that could be followed lies nearer than the overtones of a siren do."""
    own, near = max(int(_OWN_HZ / bin_hz), 1), max(int(_APART_HZ / bin_hz), 2)
    sums = np.cumsum(np.pad(followed.astype(np.int32), ((0, 0), (near + 1, near))), axis=1)
    around = sums[:, 2 * near + 1 :] - sums[:, : -2 * near - 1]
    inner = sums[:, near + own + 1 : sums.shape[1] - near + own] - sums[:, near - own : -near - own - 1]
    return np.asarray(around > inner)


def _is_even(power: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where a bin with those beside it is about as loud a moment ago as it will be in a moment."""
    near = power.copy()
    near[:, 1:] += power[:, :-1]
    near[:, :-1] += power[:, 1:]
    before, after = near[: -2 * _MOMENT], near[2 * _MOMENT :]
    even = np.zeros(power.shape, np.bool_)
    if len(before):
        even[_MOMENT:-_MOMENT] = (before < _EVEN * after) & (after < _EVEN * before)
    return even


def _stands(peaks: NDArray[np.bool_], still: int) -> NDArray[np.bool_]:
    """Where a bin holds a peak for so many frames."""
    if len(peaks) < still:
        return np.zeros_like(peaks)
    sums = np.cumsum(np.pad(peaks.astype(np.int32), ((1, 0), (0, 0))), axis=0)
    whole = np.zeros((len(peaks) + 1, peaks.shape[1]), np.int32)
    runs = (sums[still:] - sums[:-still] == still).astype(np.int32)  # that begin at each frame
    whole[: len(runs)] += runs
    whole[still : still + len(runs)] -= runs[: len(whole) - still]
    return np.asarray(np.cumsum(whole, axis=0)[: len(peaks)] > 0)


def _largest_near(values: NDArray[np.int32], reach: int) -> NDArray[np.int32]:
    views = np.lib.stride_tricks.sliding_window_view(np.pad(values, reach), 2 * reach + 1)
    return np.asarray(views.max(axis=1))


def _widened(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    sums = np.cumsum(np.pad(mask.astype(np.int32), ((0, 0), (reach + 1, reach))), axis=1)
    return np.asarray(sums[:, 2 * reach + 1 :] > sums[:, : -2 * reach - 1])


@lru_cache(maxsize=8)
def _window(size: int) -> F32:
    window: F32 = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    return window
