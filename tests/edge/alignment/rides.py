"""A ride over bumps: a body that nods and jolts, the picture it sees, the thumps it hears, the motion it feels."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.samples import AudioChunk, ImuSample

MS = 1_000_000
SECOND = 1_000 * MS
RATE_HZ = 8_000
START_NS = 50 * SECOND
Moment = tuple[int, NDArray[np.uint8] | None, list[AudioChunk], list[ImuSample]]


def ride(
    seconds: float = 40.0, sound_ns: int = 0, picture_ns: int = 0, seed: int = 0, felt_seed: int | None = None
) -> Iterator[Moment]:
    """A body that nods and jolts where bumps are, 20 pictures a second; `felt_seed`: the IMU is on another road."""
    met = _blows(seed, seconds)
    felt = met if felt_seed is None else _blows(felt_seed, seconds)
    rng = np.random.default_rng(100 + seed)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (160, 160)).astype(np.float32), (0, 0), 1.0) * 2.0 - 128.0
    imu = list(_imu(felt, seconds))
    chunks = list(_sound(met, seconds, sound_ns, rng))
    i = c = 0
    for frame in range(round(seconds * 20)):
        at = frame * 0.05
        now_ns = START_NS + round(at * 1e9)
        shift = np.float32([[1, 0, 0], [0, 1, -40.0 - 60.0 * _nod(met, np.array([at]))[0]]])
        small = cv2.warpAffine(texture, shift, (160, 96), flags=cv2.INTER_LINEAR)
        small = np.clip(small + rng.normal(0, 1.5, small.shape), 0, 255).astype(np.uint8)
        first_i, first_c = max(i - 60, 0), max(c - 30, 0)  # windows overlap, as the loop's do
        while i < len(imu) and imu[i].stamp_ns <= now_ns:
            i += 1
        while c < len(chunks) and chunks[c].stamp_ns <= now_ns:
            c += 1
        yield now_ns + picture_ns, small, chunks[first_c:c], imu[first_i:i]


def _blows(seed: int, seconds: float) -> NDArray[np.float64]:
    return np.cumsum(np.random.default_rng(seed).uniform(0.35, 1.4, round(2 * seconds)))


def _nod(blows: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pitch, rad: each blow rings at 2 Hz."""
    since = at[:, None] - blows[None]
    return np.where(since > 0, 0.02 * np.sin(4 * np.pi * since) * np.exp(-since / 0.3), 0.0).sum(1)


def _imu(blows: NDArray[np.float64], seconds: float) -> Iterator[ImuSample]:
    rng = np.random.default_rng(7)
    at = np.arange(0.0, seconds, 0.01)
    rate = np.gradient(_nod(blows, at), 0.01)
    since = at[:, None] - 0.02 - blows[None]
    up = 9.81 + np.where(since >= 0, 2.0 * np.cos(60 * since) * np.exp(-np.maximum(since, 0) / 0.06), 0.0).sum(1)
    noise = rng.normal(0, 0.02, (len(at), 2))
    for seq, (t, pitch, accel) in enumerate(zip(at, rate + 0.1 * noise[:, 0], up + noise[:, 1])):
        yield ImuSample(START_NS + round(t * 1e9), seq, (0.0, 0.0, float(accel)), (0.0, float(pitch), 0.0))


def _sound(blows: NDArray[np.float64], seconds: float, late_ns: int, rng: np.random.Generator) -> Iterator[AudioChunk]:
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    loud = np.zeros(len(at))
    for blow in blows[blows < seconds]:
        first = round(blow * RATE_HZ)
        tail = at[first : first + RATE_HZ // 2] - blow
        loud[first : first + RATE_HZ // 2] += np.exp(-np.maximum(tail, 0) / 0.05)
    pcm = (rng.normal(size=len(at)) * (100 + 4000 * loud)).clip(-32768, 32767).astype(np.int16)
    block = RATE_HZ // 50
    for seq in range(len(pcm) // block):
        yield AudioChunk(START_NS + seq * 20 * MS + late_ns, seq, RATE_HZ, pcm[seq * block : (seq + 1) * block])
