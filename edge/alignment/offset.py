"""How much later the sound is than the picture, and how sure that is: correlation over lags, block by block.

At every lag each block's brightness and change are correlated with the sound's level; the best few blocks count, after
their neighbours were asked, for what makes a sound is one thing in one place. The peak is placed between lags by a
parabola. How sure it is: how far it stands above what sounds of the same colour, but of random phase, reach in the same
picture at their best lags. Speech of three seconds seldom says more than that something moves when something sounds.

Ref: Theiler et al., "Testing for nonlinearity in time series: the method of surrogate data", Physica D 58, 1992.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.alignment.activity import PictureActivity
from edge.alignment.series import F64, I64, Series
from edge.errors import AlignmentError

F32 = NDArray[np.float32]
STEP_NS: Final = 20_000_000  # of the common grid, and between lags
MAX_LAG_NS: Final = 800_000_000
FAST_S: Final = 0.06  # what is faster is noise of either side
SLOW_S: Final = 0.6  # what is slower says nothing of an instant
LEAST_NS: Final = 1_500_000_000  # of both at every lag
BEST_BLOCKS: Final = 0.02  # share that counts
STILL: Final = 0.5  # share of the blocks, those that change least, that can't be the source
SURROGATES: Final = 24
_CHANNELS: Final = 128  # that OpenCV takes at once
SURE: Final = 0.95  # confidence from which an offset is told
_SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What one stretch says of each lag, or several stretches together: evidence adds up.

    Attributes:
        lags_ns: (k,) how much later the sound is.
        scores: (1 + SURROGATES, k) how well the sound fits, then how well each unrelated sound does, times seconds.
        origin: (rows, columns, k) how much each block has to do with the sound at each lag.
    """

    lags_ns: I64
    scores: F64
    origin: F32

    def __add__(self, other: Evidence) -> Evidence:
        """Of both stretches, of one camera and with the same lags."""
        return Evidence(self.lags_ns, self.scores + other.scores, self.origin + other.origin)


@dataclass(frozen=True, slots=True, eq=False)
class Offset:
    """What the picture and the sound say of their clocks.

    Attributes:
        offset_ns: how much later the sound is; the best guess, whether sure or not.
        confidence: 0..1: one less the chance that an unrelated sound fits as well.
    """

    offset_ns: int
    confidence: float

    @property
    def is_sure(self) -> bool:
        return self.confidence >= SURE


def camera_sound_evidence(
    picture: PictureActivity, level: Series, max_lag_ns: int = MAX_LAG_NS, seed: int = 0
) -> Evidence:
    """Of a stretch of pictures and of sound, both by their own stamps.

    Args:
        level: activity.sound_level.
        seed: of the surrogates.

    Raises:
        AlignmentError: too little of both at the same time.
    """
    light, change = picture.light(), picture.change()
    start_ns, end_ns = int(change.stamps_ns[0]), int(change.stamps_ns[-1])
    grid = np.arange(start_ns, end_ns + 1, STEP_NS)
    lags = max_lag_ns // STEP_NS
    sound, heard = on_grid_heard(level, start_ns - lags * STEP_NS, len(grid) + 2 * lags)
    counts = np.convolve(heard, np.ones(len(grid)), "valid")
    if counts.min() * STEP_NS < LEAST_NS:
        raise AlignmentError(
            f"camera and sound: expected {LEAST_NS / 1e9:g} s of both at every offset of up to {max_lag_ns / 1e9:g} s, "
            f"got {counts.min() * STEP_NS / 1e9:.2f} s"
        )
    sounds = np.zeros((1 + SURROGATES, len(sound)))
    sounds[0] = sound
    sounds[1:, heard] = random_phase(sound[heard], SURROGATES, np.random.default_rng(seed))
    moved = [_moved(one, heard, len(grid), counts) for one in sounds]
    scores = np.zeros((len(sounds), len(counts)))
    origin = np.zeros((int(np.prod(picture.shape)), len(counts)), np.float32)
    for series, is_signed in ((change, True), (light, False)):  # a mouth may be darker or lighter than its lips
        blocks = _moving(filtered(on_grid(series, grid)))
        spread = _spread(blocks, heard, counts)
        for i, (product, energy) in enumerate(moved):
            found = _around((blocks.T @ product) / np.sqrt(spread * energy), picture.shape)
            if not is_signed:
                np.abs(found, out=found)
            scores[i] += 0.5 * _best(found)
            if i == 0:
                origin += np.float32(0.5) * found
    scores *= np.sqrt(counts / counts.max())  # a lag that shares less time is less sure
    seconds = len(grid) * STEP_NS / _SECOND_NS  # so that, added up, a long stretch says more than a short one
    scores *= seconds
    origin *= np.float32(seconds)
    return Evidence(np.arange(-lags, lags + 1) * STEP_NS, scores, origin.reshape(*picture.shape, -1))


def told(evidence: Evidence) -> Offset:
    """The offset that all evidence speaks for, and how sure it is."""
    return best_lag(evidence.lags_ns, evidence.scores)


def best_lag(lags_ns: I64, scores: F64) -> Offset:
    """The lag at which the sound fits best, and how sure that is: not at all where it is the first or last one, for
    then it may well lie beyond.

    Args:
        lags_ns: (k,) evenly spaced.
        scores: (1 + n, k) how well the sound fits, then how well each of n unrelated sounds does.
    """
    peak = int(scores[0].argmax())
    if not 0 < peak < len(lags_ns) - 1:
        return Offset(int(lags_ns[peak]), 0.0)
    step_ns = int(lags_ns[1] - lags_ns[0])
    offset_ns = int(lags_ns[peak]) + round(between(scores[0], peak) * step_ns)
    return Offset(offset_ns, confidence(float(scores[0, peak]), scores[1:].max(axis=1)))


def confidence(reached: float, chance: F64) -> float:
    """One less the chance that an unrelated sound reaches as much, what those reached taken as normal, (k,)."""
    deviations = (reached - float(chance.mean())) / max(float(chance.std(ddof=1)), 1e-9)
    return 0.5 * math.erfc(-deviations / math.sqrt(2.0))


def on_grid_heard(level: Series, start_ns: int, count: int) -> tuple[F64, NDArray[np.bool_]]:
    """The level on `count` steps from `start_ns`, filtered, and where it was heard; 0 elsewhere."""
    grid = start_ns + STEP_NS * np.arange(count)
    after = np.clip(np.searchsorted(level.stamps_ns, grid), 1, max(len(level) - 1, 1))
    if len(level) < 2:
        return np.zeros(count), np.zeros(count, bool)
    inside = (grid >= level.stamps_ns[0]) & (grid <= level.stamps_ns[-1])
    heard = inside & (level.stamps_ns[after] - level.stamps_ns[after - 1] <= 4 * STEP_NS)
    sound = np.zeros(count)
    if heard.any():
        sound[heard] = filtered(np.interp(grid[heard], level.stamps_ns, level.values[:, 0])[:, None])[:, 0]
    return sound, heard


def on_grid(series: Series, grid: I64) -> F64:
    """(len(grid), d), lines between samples."""
    after = np.clip(np.searchsorted(series.stamps_ns, grid), 1, len(series) - 1)
    before_ns, after_ns = series.stamps_ns[after - 1], series.stamps_ns[after]
    part = np.clip((grid - before_ns) / (after_ns - before_ns), 0.0, 1.0)[:, None]
    found: F64 = series.values[after - 1] * (1.0 - part) + series.values[after] * part
    return found


def filtered(values: F64) -> F64:
    """What is between FAST_S and SLOW_S, along axis 0; beyond the ends the signal is mirrored."""
    return _smoothed(values, FAST_S) - _smoothed(values, SLOW_S)


def _smoothed(values: F64, sigma_s: float) -> F64:
    sigma = sigma_s * _SECOND_NS / STEP_NS
    reach = min(math.ceil(3.0 * sigma), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)[:, None]
    smooth = cv2.filter2D(values, cv2.CV_64F, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(smooth, np.float64).reshape(values.shape)


def _moving(blocks: F64) -> F32:
    """The blocks' signals, 0 for those that change least."""
    activity = blocks.std(axis=0)
    moving = (activity > np.quantile(activity, STILL)) & (activity > 1e-6)
    return np.asarray(blocks * moving, np.float32)


def _moved(sound: F64, heard: NDArray[np.bool_], n: int, counts: F64) -> tuple[F32, F32]:
    """(n, lags) the sound at each lag less its mean over what was heard, 0 where nothing was; (lags,) its energy."""
    windows = np.lib.stride_tricks.sliding_window_view
    inside = windows(heard, n)
    moved = windows(sound, n) * inside
    moved = (moved - moved.sum(1, keepdims=True) / counts[:, None]) * inside
    product = np.ascontiguousarray(moved.T, np.float32)
    return product, np.maximum((product * product).sum(0), 1e-9)


def _spread(blocks: F32, heard: NDArray[np.bool_], counts: F64) -> F32:
    """(blocks, lags) sum of squares of each block about its mean, over the time in which the sound was heard."""
    inside = np.lib.stride_tricks.sliding_window_view(heard, len(blocks)).T.astype(np.float32)
    sums, squares = blocks.T @ inside, (blocks * blocks).T @ inside
    return np.maximum(squares - sums * sums / counts.astype(np.float32), 1e-9)


def _around(correlations: F32, shape: tuple[int, int]) -> F32:
    """(blocks, lags) each block with its neighbours."""
    maps = np.empty((*shape, correlations.shape[1]), np.float32)
    for first in range(0, maps.shape[2], _CHANNELS):
        lags = slice(first, first + _CHANNELS)
        slab = np.ascontiguousarray(correlations[:, lags]).reshape(*shape, -1)
        maps[..., lags] = cv2.GaussianBlur(slab, (0, 0), 1.0).reshape(slab.shape)
    return maps.reshape(correlations.shape)


def _best(maps: F32) -> F64:
    """(lags,) mean of the best blocks."""
    kept = max(round(BEST_BLOCKS * len(maps)), min(3, len(maps)))
    by_lag = np.ascontiguousarray(maps.T)
    return np.asarray(np.partition(by_lag, -kept, axis=1)[:, -kept:].mean(axis=1), np.float64)


def random_phase(sound: F64, count: int, rng: np.random.Generator) -> F64:
    """(count, n) signals with the sound's spectrum and none of its events."""
    spectrum = np.abs(np.fft.rfft(sound))
    turned = spectrum * np.exp(1j * rng.uniform(0.0, 2.0 * np.pi, (count, len(spectrum))))
    turned[:, 0] = 0.0
    return np.asarray(np.fft.irfft(turned, n=len(sound)), np.float64)


def between(scores: F64, peak: int) -> float:
    """The top of the parabola through the peak and its neighbours, in lags from the peak."""
    if not 0 < peak < len(scores) - 1:
        return 0.0
    left, top, right = scores[peak - 1 : peak + 2].tolist()
    bend = left - 2.0 * top + right
    return 0.0 if bend >= 0.0 else 0.5 * (left - right) / bend
