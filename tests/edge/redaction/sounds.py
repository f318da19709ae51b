"""Sounds made by hand, and how much of what makes words is left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.world.sound.sirens import SirenTone
from export.world.sound.voice import Voice
from export.world.town import town

RATE_HZ = 16_000
OCTAVES_HZ = ((125, 250), (250, 500), (500, 1000), (1000, 2000), (2000, 4000))
F32 = NDArray[np.float32]


def babble(seconds: int, level: float = 0.1, talker: int = 1) -> F32:
    """The world's speech-like sound, of a talker who always talks."""
    voice = Voice(3, town(300).hearing, talker, RATE_HZ)
    voice._talks = 1.0
    return (level * np.concatenate([voice.second(at) for at in range(seconds)])).astype(np.float32)


def siren(seconds: float, kind: str, level: float = 0.1) -> F32:
    return (level * SirenTone(kind, 1).sound(np.arange(int(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def noise(seconds: float, level: float = 0.02, seed: int = 1) -> F32:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(int(seconds * RATE_HZ))).astype(np.float32)


def words_left(before: Any, after: Any, rate_hz: int = RATE_HZ) -> list[float]:
    """By octave, the correlation of what changes 2 to 16 times a second."""
    changes = [_changes(np.asarray(sound, np.float64), rate_hz) for sound in (before, after)]
    return [float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-30)) for a, b in zip(*changes)]


def _changes(sound: Any, rate_hz: int) -> Any:
    size, hop = 2 * int(rate_hz * 0.0125), int(rate_hz * 0.01)
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop] * np.hanning(size)
    power, hz = np.abs(np.fft.rfft(frames, axis=1)) ** 2, np.fft.rfftfreq(size, 1 / rate_hz)
    levels = np.array([np.sqrt(power[:, (hz >= low) & (hz < high)].sum(axis=1)) for low, high in OCTAVES_HZ])
    spectrum = np.fft.rfft(levels - levels.mean(axis=1, keepdims=True), axis=1)
    rate = np.fft.rfftfreq(levels.shape[1], 0.01)
    spectrum[:, (rate < 2) | (rate > 16)] = 0
    return np.fft.irfft(spectrum, levels.shape[1], axis=1)
