"""Noises as seamless loops with a drawn spectrum: tyres and wind, rain, and single footfalls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def loop(rng: np.random.Generator, seconds: float, rate_hz: int, bands: tuple[tuple[float, float], ...]) -> F64:
    """A periodic noise of unit power whose level follows (frequency in Hz, dB) corner points."""
    count = int(seconds * rate_hz)
    frequency = np.fft.rfftfreq(count, 1.0 / rate_hz)
    corners_hz = np.log(np.maximum([b[0] for b in bands], 1.0))
    level_db = np.interp(np.log(np.maximum(frequency, 1.0)), corners_hz, [b[1] for b in bands])
    spectrum = rng.normal(size=(2, len(frequency)))
    wave = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * 10.0 ** (level_db / 20.0), count)
    return np.asarray(wave / wave.std())


def window(wave: F64, first: int, count: int) -> F64:
    """Samples of a loop from a running index."""
    return np.asarray(np.take(wave, np.arange(first, first + count), mode="wrap"))


TYRES = ((20.0, -6.0), (60.0, 0.0), (250.0, -2.0), (900.0, -4.0), (1600.0, -14.0), (4000.0, -30.0), (8000.0, -42.0))
WIND = ((20.0, 0.0), (120.0, -6.0), (500.0, -18.0), (2000.0, -32.0), (8000.0, -50.0))
RAIN = ((20.0, -34.0), (400.0, -20.0), (1500.0, -6.0), (4000.0, 0.0), (8000.0, -3.0))
HISS = ((20.0, -6.0), (8000.0, 0.0))


def footfall(rng: np.random.Generator, rate_hz: int, sole: tuple[float, float, float] = (1.0, 0.01, 0.6)) -> F64:
    """One footstep of 90 ms: heel thump, then sole; peak about 1.

    Args:
        sole: the ground: factor on the pitch, decay (s) and share of the scraping.
    """
    pitch, decay_s, scrape = sole
    count = int(0.09 * rate_hz)
    t = np.arange(count) / rate_hz
    thump = np.sin(2 * np.pi * pitch * float(rng.uniform(80, 120)) * t) * np.exp(-t / 0.012)
    click = np.diff(rng.normal(0, 0.7, count + 1)) * np.exp(-t / (decay_s * float(rng.uniform(0.8, 1.25))))
    scraped = np.concatenate([np.zeros(int(0.035 * rate_hz)), click])[:count] * scrape
    wave = thump + 0.8 * click + scraped
    return np.asarray(wave / np.abs(wave).max())


def drops(rng: np.random.Generator, count: int, rate_hz: int, per_s: float) -> F64:
    """Single drops on the roof: short damped clicks."""
    wave = np.zeros(count)
    number = int(rng.poisson(per_s * count / rate_hz))
    t = np.arange(int(0.006 * rate_hz)) / rate_hz
    for at in rng.integers(0, max(count - len(t), 1), number):
        click = np.sin(2 * np.pi * float(rng.uniform(900, 3200)) * t) * np.exp(-t / 0.0012)
        wave[at : at + len(t)] += click * float(rng.exponential(1.0))
    return wave


def response(corners_db: tuple[float, float, float, float, float], rate_hz: int, taps: int = 63) -> F64:
    """A linear-phase filter of a microphone whose level at 60, 250, 1000, 3000 and 7500 Hz is given."""
    frequency = np.fft.rfftfreq(512, 1.0 / rate_hz)
    corners = np.log([60.0, 250.0, 1000.0, 3000.0, 7500.0])
    level_db = np.interp(np.log(np.maximum(frequency, 1.0)), corners, corners_db)
    impulse = np.roll(np.fft.irfft(10.0 ** (level_db / 20.0), 512), taps // 2)[:taps]
    return np.asarray(impulse * np.hamming(taps))
