"""Sensor faults planted into samples on their way to the loop: what a broken sensor still delivers, on time.

    plant = Planted("imu stuck", start_ns, seed=7)
    sample = plant("imu", sample)  # as it would be with the fault; other streams' samples come back as they are

Severities are drawn from the seed, from slight enough to be missed by eye to gross.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, Sweep

U8 = NDArray[np.uint8]
FULL_SCALE: Final = 32767
METRES_PER_DEGREE: Final = 111_320.0
_SENSOR_NOISE: Final = 2.0  # grey levels; blur in front of the sensor does not blur its noise
_NOISES: Final = 4  # pictures of noise, taken in turn


class Planted:
    """One fault from an instant on.

    Args:
        fault: "modality kind", one of FAULTS.
        start_ns: capture of the first sample that is struck.
        seed: of the severity and of all noise.
    """

    def __init__(self, fault: str, start_ns: int, seed: int) -> None:
        self.fault = fault
        self.stream = fault.split()[0]
        self._start_ns = start_ns
        self._rng = np.random.default_rng((seed, sorted(FAULTS).index(fault)))
        self._strike: Callable[[Any], Any] | None = None

    def __call__(self, stream: str, sample: Any) -> Any:
        """The sample as the broken sensor gives it."""
        if stream != self.stream or sample.stamp_ns < self._start_ns:
            return sample
        if self._strike is None:
            self._strike = FAULTS[self.fault](self._rng, sample)
        return self._strike(sample)


Strike = Callable[[Any], Any]
Rng = np.random.Generator


# --- camera -----------------------------------------------------------------------------------------------------------


def _dirty(rng: Rng, first: Frame) -> Strike:
    """Splashes over 25 to 50 % of the picture: what is behind them is veiled and out of focus."""
    assert first.image is not None
    height, width = first.image.shape[:2]
    cover = np.zeros((height, width), np.float32)
    wanted = float(rng.uniform(0.25, 0.5))
    while float((cover > 0.5).mean()) < wanted:
        middle = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.uniform(0.06, 0.16) * width), int(rng.uniform(0.06, 0.16) * width)
        cv2.ellipse(cover, middle, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), 0.012 * width), np.float32)
    cover *= np.float32(rng.uniform(0.8, 0.95))
    tint = np.array([0.5, 0.65, 0.75], np.float32) * np.float32(rng.uniform(40, 90))
    add_noise = _noise(rng, first.image.shape)

    def strike(frame: Frame) -> Frame:
        light = frame.image.astype(np.float32)  # type: ignore[union-attr]
        behind = cv2.GaussianBlur(cv2.resize(light, (width // 4, height // 4)), (0, 0), 0.006 * width)
        veil = 0.5 * cv2.resize(behind, (width, height)) + tint
        return frame._replace(image=add_noise(light + cover[..., None] * (veil - light)))

    return strike


def _frozen(rng: Rng, first: Frame) -> Strike:
    return lambda frame: frame._replace(image=first.image, jpeg=first.jpeg)


def _blurred(rng: Rng, first: Frame) -> Strike:
    """Defocus, a disc of 8 to 16 px at 640."""
    assert first.image is not None
    radius = max(round(float(rng.uniform(0.0065, 0.0125)) * first.image.shape[1]), 1)
    disc = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    cv2.circle(disc, (radius, radius), radius, 1.0, -1)
    disc /= disc.sum()
    add_noise = _noise(rng, first.image.shape)
    return lambda frame: frame._replace(image=add_noise(cv2.filter2D(frame.image, cv2.CV_32F, disc)))


def _exposure(rng: Rng, first: Frame) -> Strike:
    """The shutter stuck: pictures washed out or nearly black."""
    assert first.image is not None
    usual = max(float(first.image.mean()), 1.0)
    wanted = float(rng.uniform(500.0, 900.0)) if rng.random() < 0.5 else float(rng.uniform(0.02, 0.08)) * usual
    add_noise = _noise(rng, first.image.shape)
    return lambda frame: frame._replace(image=add_noise(frame.image.astype(np.float32) * (wanted / usual)))


def _noise(rng: Rng, shape: tuple[int, ...]) -> Callable[[Any], U8]:
    noises = [rng.normal(0.0, _SENSOR_NOISE, shape).astype(np.float32) for _ in range(_NOISES)]
    count = 0

    def add(light: Any) -> U8:
        nonlocal count
        count += 1
        noise = np.roll(noises[count % _NOISES], 7 * count, axis=1)
        return np.asarray(np.clip(light + noise, 0, 255), np.uint8)

    return add


# --- microphone -------------------------------------------------------------------------------------------------------


def _wind(rng: Rng, first: AudioChunk) -> Strike:
    """Gusts on the membrane: noise that falls by 12 dB an octave from 15 Hz, at -16 to -8 dBFS, at 0.3 to 2 Hz."""
    rate = first.rate_hz
    count = 16 * rate
    frequency = np.fft.rfftfreq(count, 1.0 / rate)
    shape = 1.0 / (1.0 + (frequency / 15.0) ** 2) * (frequency > 2.0)
    noise = np.fft.irfft((rng.normal(size=(2, len(frequency))).T @ [1, 1j]) * shape, count)
    swell = 1.0 + 0.5 * np.sin(2 * np.pi * np.arange(count) / count * round(float(rng.uniform(0.3, 2.0)) * 16))
    noise *= swell / (noise * swell).std() * 10.0 ** (float(rng.uniform(-16.0, -8.0)) / 20.0)

    def strike(chunk: AudioChunk) -> AudioChunk:
        at = round((chunk.stamp_ns - first.stamp_ns) * rate / 1e9)
        gust = np.take(noise, np.arange(at, at + len(chunk.pcm)), mode="wrap") * FULL_SCALE
        return chunk._replace(pcm=_cut(chunk.pcm + gust))

    return strike


def _dead(rng: Rng, first: AudioChunk) -> Strike:
    """The noise of the converter, -84 to -72 dBFS, or nothing at all."""
    level = 0.0 if rng.random() < 0.2 else float(rng.uniform(2.0, 8.0))
    return lambda chunk: chunk._replace(pcm=_cut(np.round(rng.normal(0.0, level + 1e-9, len(chunk.pcm)))))


def _clipping(rng: Rng, first: AudioChunk) -> Strike:
    """The gain gone up by 30 to 42 dB."""
    gain = 10.0 ** (float(rng.uniform(30.0, 42.0)) / 20.0)
    return lambda chunk: chunk._replace(pcm=_cut(chunk.pcm * gain))


def _cut(wave: Any) -> NDArray[np.int16]:
    return np.asarray(np.clip(wave, -FULL_SCALE - 1, FULL_SCALE), np.int16)


# --- IMU --------------------------------------------------------------------------------------------------------------


def _stuck(rng: Rng, first: ImuSample) -> Strike:
    return lambda sample: sample._replace(accel_mps2=first.accel_mps2, gyro_radps=first.gyro_radps)


def _biased(rng: Rng, first: ImuSample) -> Strike:
    """A yaw rate off by 0.06 to 0.2 rad/s, a forward or upward force off by 1.5 to 3 m/s2, or two axes swapped."""
    kind = int(rng.integers(3))
    sign = float(rng.choice([-1.0, 1.0]))
    turn, push, axis = float(rng.uniform(0.06, 0.2)) * sign, float(rng.uniform(1.5, 3.0)) * sign, int(rng.integers(2))

    def strike(sample: ImuSample) -> ImuSample:
        accel, gyro = list(sample.accel_mps2), list(sample.gyro_radps)
        if kind == 0:
            gyro[2] += turn
        elif kind == 1:
            accel[2 * axis] += push
        else:
            accel[axis], accel[2] = accel[2], accel[axis]
            gyro[axis], gyro[2] = gyro[2], gyro[axis]
        return sample._replace(accel_mps2=(accel[0], accel[1], accel[2]), gyro_radps=(gyro[0], gyro[1], gyro[2]))

    return strike


# --- LiDAR ------------------------------------------------------------------------------------------------------------


def _blocked(rng: Rng, first: Sweep) -> Strike:
    """Mud on the window: no returns from a sector of 50 to 120 degrees, but for a few."""
    half, middle = math.radians(float(rng.uniform(25.0, 60.0))), float(rng.uniform(-math.pi, math.pi))
    left = float(rng.uniform(0.0, 0.05))  # share of the returns that still come through

    def strike(sweep: Sweep) -> Sweep:
        points = sweep.points_lidar
        away = np.arctan2(points[:, 1], points[:, 0]) - middle
        behind = np.abs(np.arctan2(np.sin(away), np.cos(away))) < half
        return sweep._replace(points_lidar=points[~behind | (rng.random(len(points)) < left)])

    return strike


def _ghosts(rng: Rng, first: Sweep) -> Strike:
    """Spray: 8 to 30 % of the beams come back from drops at 0.5 to 4 m."""
    share = float(rng.uniform(0.08, 0.3))

    def strike(sweep: Sweep) -> Sweep:
        points = sweep.points_lidar.copy()
        struck = rng.random(len(points)) < share
        xyz = points[struck, :3]
        reach = rng.uniform(0.5, 4.0, (len(xyz), 1)).astype(np.float32)
        points[struck, :3] = xyz * np.minimum(reach / np.linalg.norm(xyz, axis=1, keepdims=True), 1.0)
        return sweep._replace(points_lidar=points)

    return strike


# --- GNSS -------------------------------------------------------------------------------------------------------------


def _jumping(rng: Rng, first: GnssFix) -> Strike:
    """The position leaps by 15 to 60 m, or drifts away at 3 to 8 m/s, while the velocity goes on as before."""
    bearing = float(rng.uniform(-math.pi, math.pi))
    leaps = rng.random() < 0.5
    size = float(rng.uniform(15.0, 60.0) if leaps else rng.uniform(3.0, 8.0))

    def strike(fix: GnssFix) -> GnssFix:
        away_m = size if leaps else size * (fix.stamp_ns - first.stamp_ns) * 1e-9
        north, east = away_m * math.cos(bearing), away_m * math.sin(bearing)
        along = METRES_PER_DEGREE * math.cos(math.radians(fix.latitude_deg))
        return fix._replace(
            latitude_deg=fix.latitude_deg + north / METRES_PER_DEGREE, longitude_deg=fix.longitude_deg + east / along
        )

    return strike


FAULTS: Final[dict[str, Callable[[Rng, Any], Strike]]] = {
    "camera dirty": _dirty,
    "camera frozen": _frozen,
    "camera blurred": _blurred,
    "camera exposure": _exposure,
    "audio wind": _wind,
    "audio dead": _dead,
    "audio clipping": _clipping,
    "imu stuck": _stuck,
    "imu biased": _biased,
    "lidar blocked": _blocked,
    "lidar ghosts": _ghosts,
    "gnss jumping": _jumping,
}
