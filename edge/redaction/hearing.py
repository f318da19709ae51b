"""Where in a stretch of sound somebody may be speaking, as spans of time.

Three sources, of which all count: what the loop heard (`sound_events` of the recorded decisions), a model for voices
where one is given, and a rule: the sound of the voice bands comes and goes as syllables do, 2 to 16 times a second, in
two bands at least. The rule needs no model and errs on the side of too much: steps and barking count as voices too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.streams import SECOND

SPEECH: Final = frozenset({"speech", "voice", "talking", "conversation", "shout", "singing"})
LIKELY: Final = 0.10  # of a recorded decision; the rule and the margins do the rest
HEARD_NS: Final = 1_040_000_000  # of sound before a frame that its decision speaks of
MARGIN_NS: Final = 300_000_000
_HOP_S: Final = 0.010
_AROUND_S: Final = 0.5  # on each side of an instant that the rule looks at
_BANDS_HZ: Final = ((180, 360), (360, 720), (720, 1440), (1440, 2880), (2880, 5000))
_DEPTH: Final = 0.35  # of the coming and going, as a share of the mean
_BANDS: Final = 2
_QUIET: Final = 10 ** (-66 / 20)  # RMS in a band, of full scale; below, nobody would be understood
_SLOW_S: Final = 0.5  # changes slower than 2 Hz are none of speech's
_FAST_S: Final = 0.03  # nor those faster than 16 Hz


class Spans:
    """Spans of time, in whatever order they come."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []
        self._merged: list[tuple[int, int]] | None = None

    def add(self, first_ns: int, last_ns: int) -> None:
        """Take a span; spans that touch become one now and then, so that their number stays small."""
        if self._spans and self._spans[-1][0] <= first_ns <= self._spans[-1][1]:
            self._spans[-1] = (self._spans[-1][0], max(self._spans[-1][1], last_ns))
        else:
            self._spans.append((first_ns, last_ns))
        self._merged = None

    def within(self, first_ns: int, last_ns: int) -> list[tuple[int, int]]:
        """The parts of spans that lie in a stretch of time."""
        if self._merged is None:
            self._merged = merged(self._spans)
        at = max(bisect_right(self._merged, (first_ns, 1 << 63)) - 1, 0)
        found = []
        while at < len(self._merged) and self._merged[at][0] < last_ns:
            begin, end = max(self._merged[at][0], first_ns), min(self._merged[at][1], last_ns)
            if begin < end:
                found.append((begin, end))
            at += 1
        return found


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans by their beginning, none touching another."""
    result: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((begin, end))
    return result


def reach(rate_hz: int) -> int:
    """Samples around a stretch that the rule reads."""
    return int((_AROUND_S + _SLOW_S + MARGIN_NS / SECOND + 4 * _HOP_S) * rate_hz) + 2 * _frame(rate_hz)


def voiced(pcm: NDArray[np.float32], origin: int, first: int, last: int, rate_hz: int) -> NDArray[np.bool_]:
    """Samples first..last in which the rule hears a voice.

    Args:
        pcm: -1..1, samples from `origin` on, `reach` around what is asked for where there are any.
        origin, first, last: places in the stretch.
    """
    hop = max(int(_HOP_S * rate_hz), 1)
    margin = int(MARGIN_NS * rate_hz / SECOND)
    around, slow, fast = (max(int(seconds / _HOP_S), 1) for seconds in (_AROUND_S, _SLOW_S, _FAST_S))
    begin, end = (first - margin) // hop - around - slow, (last + margin) // hop + around + slow + 1
    levels = _levels(pcm, origin, begin, end, hop, rate_hz)  # (hops, bands)
    if not levels.shape[1]:
        return np.ones(last - first, np.bool_)
    mean = _moving(levels, slow)
    changes = _moving(levels, fast) - mean
    depth = np.sqrt(_moving(changes**2, 2 * around)) / np.maximum(_moving(levels, 2 * around), 1e-9)
    loud = _moving(levels, 2 * around) > _QUIET
    speaks = np.sum((depth > _DEPTH) & loud, axis=1) >= min(_BANDS, levels.shape[1])
    hops = np.convolve(speaks, np.ones(2 * (margin // hop) + 1), "same") > 0.5
    places = np.arange(first, last) // hop - begin
    return np.asarray(hops[places])


def _levels(pcm: NDArray[np.float32], origin: int, begin: int, end: int, hop: int, rate_hz: int) -> NDArray[np.float64]:
    """RMS of the voice bands, hop by hop."""
    frame = _frame(rate_hz)
    first = begin * hop + hop // 2 - frame // 2 - origin
    size = (end - begin - 1) * hop + frame
    part = np.zeros(size, np.float32)
    low, high = max(first, 0), min(first + size, len(pcm))
    if low < high:
        part[low - first : high - first] = pcm[low:high]
    frames = np.lib.stride_tricks.sliding_window_view(part, frame)[::hop]
    window, bands = _bands(frame, rate_hz)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    levels = np.sqrt(power @ bands)
    # Where the stretch begins or ends it is mirrored: a sound that begins with the recording is no syllable.
    inside = np.flatnonzero((np.arange(len(levels)) * hop >= low - first) & (
        np.arange(len(levels)) * hop + frame <= high - first))  # fmt: skip
    if not len(inside):
        return np.asarray(levels)
    at, begins, count = np.arange(len(levels)), inside[0], len(inside)
    mirrored = (at - begins) % (2 * count)
    return np.asarray(levels[begins + np.where(mirrored < count, mirrored, 2 * count - 1 - mirrored)])


def _frame(rate_hz: int) -> int:
    return max(2 * int(rate_hz * 0.0125), 8)


@lru_cache(maxsize=8)
def _bands(frame: int, rate_hz: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    frequencies = np.fft.rfftfreq(frame, 1.0 / rate_hz)
    columns = [
        (frequencies >= low) & (frequencies < high) for low, high in _BANDS_HZ if np.any(
            (frequencies >= low) & (frequencies < high)) and high <= rate_hz / 2 * 1.3
    ]  # fmt: skip
    shares = np.array(columns, np.float64).reshape(len(columns), len(frequencies)).T
    return window, shares * 2.0 / (frame * float(np.sum(window**2)))


def _moving(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Mean over about `size` rows around each."""
    half = max(size // 2, 1)
    padded = np.pad(values, ((half + 1, half), (0, 0)), mode="edge")
    sums = np.cumsum(padded, axis=0)
    return np.asarray((sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1))
