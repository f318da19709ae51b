"""Speech-like babble: syllables of a pulsed voice through moving formants, with bursts of breath between.

It carries the rhythm, pitch and formants of speech and no words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.world.seeds import generator
from export.world.town import Hearing

F64 = NDArray[np.float64]

# First three formants (Hz) of a, e, i, o, u, schwa. Ref: Peterson and Barney, 1952 (male means).
VOWELS = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
    (490, 1350, 1690),
)
PHRASE_S = 3


class Voice:
    """One talker."""

    def __init__(self, seed: int, hearing: Hearing, talker: int, rate_hz: int) -> None:
        self._seed, self._talker, self._rate = seed, talker, rate_hz
        rng = generator(seed, "voice", talker)
        usual_hz = float(rng.choice([rng.uniform(90, 135), rng.uniform(170, 240)]))
        tract = 1.0 if usual_hz < 150 else 1.15
        self._pitch_hz = hearing.pitch * usual_hz
        self._tracts = tuple(tract * share for share in hearing.vowels)
        self._breath = hearing.breath
        self._pace = hearing.pace * float(rng.uniform(3.4, 5.2))
        self._talks = float(rng.uniform(0.5, 0.9))

    def second(self, index: int) -> F64:
        """One second of babble, about unit power while it talks."""
        sound = np.zeros(self._rate)
        if generator(self._seed, "phrase", self._talker, index // PHRASE_S).random() > self._talks:
            return sound
        rng = generator(self._seed, "syllables", self._talker, index)
        start = 0.0
        while start < 0.84:
            length = float(rng.uniform(0.7, 1.0)) / self._pace
            length = min(length, 0.99 - start)
            self._syllable(sound, rng, start, length)
            start += length + float(rng.exponential(0.03))
        return sound

    def _syllable(self, sound: F64, rng: np.random.Generator, start_s: float, length_s: float) -> None:
        count = int(length_s * self._rate)
        first = int(start_s * self._rate)
        t = np.arange(count) / self._rate
        u = t / length_s
        pitch = (
            self._pitch_hz
            * float(rng.uniform(0.85, 1.25))
            * (1.08 - 0.16 * u)
            * (1 + 0.015 * np.sin(2 * np.pi * 5.5 * t))
        )
        phase = 2 * np.pi * np.cumsum(pitch) / self._rate
        a, b = (VOWELS[int(rng.integers(len(VOWELS)))] for _ in range(2))
        voiced = np.zeros(count)
        harmonics = int(3600.0 / self._pitch_hz)
        for n in range(1, harmonics + 1):
            weight_a = _formant_gain(n * self._pitch_hz, a, self._tracts)
            weight_b = _formant_gain(n * self._pitch_hz, b, self._tracts)
            voiced += (weight_a * (1 - u) + weight_b * u) * np.sin(n * phase)
        shape = np.minimum(1.0, u / 0.15) * np.minimum(1.0, (1.0 - u) / 0.3)
        voiced *= shape * 1.5
        if rng.random() < self._breath:
            burst = min(int(0.07 * self._rate), count)
            breath = np.diff(rng.normal(0.0, 0.35, burst + 1)) * np.hanning(burst)
            voiced[:burst] += breath
        sound[first : first + count] += voiced


def _formant_gain(frequency_hz: float, formants: tuple[int, int, int], tracts: tuple[float, ...]) -> float:
    gain = 0.02
    for formant, tract, weight, width in zip(formants, tracts, (1.0, 0.5, 0.25), (90.0, 120.0, 170.0)):
        gain += weight / (1.0 + ((frequency_hz - formant * tract) / width) ** 2)
    return float(gain * (200.0 / max(frequency_hz, 100.0)) ** 0.35)
