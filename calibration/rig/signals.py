"""Signals of one motion as different sensors see it: turning, accelerating, speed, and sudden events.

Stamps are capture instants of the drive, in seconds from its first sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.rig.correlate import Series
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError
from edge.samples import AudioChunk, Frame, GnssFix, ImuSample, VehicleState

_NS_PER_S: Final = 1_000_000_000
_TOPICS: Final = (topics.CAMERA, topics.AUDIO, topics.IMU, topics.GNSS, topics.VEHICLE)
_SMALL_PX: Final = 320  # width at which picture motion is measured
_CORNERS: Final = 150
_LEAST_CORNERS: Final = 12
_ONSET_HZ: Final = 100
_QUIETEST: Final = 10.0  # of 16-bit sound; keeps the logarithm of silence finite
_M_PER_DEG: Final = 111_195.0


@dataclass(slots=True)
class Signals:
    """What a drive's sensors say, by name: "gyro_x", "accel_y", "speed", "yaw_rate", "turn_x", "onset", ..."""

    imu: dict[str, Series] = field(default_factory=dict)
    vehicle: dict[str, Series] = field(default_factory=dict)
    gnss: dict[str, Series] = field(default_factory=dict)
    camera: dict[str, Series] = field(default_factory=dict)
    audio: dict[str, Series] = field(default_factory=dict)


def read_signals(drive: DriveReader) -> Signals:
    """All signals of a drive; streams that it does not have stay empty, undecodable samples are gaps."""
    columns: dict[str, list[Any]] = {topic: [] for topic in _TOPICS}
    pictures = _PictureMotion()
    for message in drive.messages(topics=_TOPICS):
        try:
            sample = codec.decode(message.topic, message.payload, message.sequence)
        except DriveFormatError:  # a damaged sample is a gap, here as in the loop
            continue
        if isinstance(sample, Frame):
            pictures.see(sample)
        else:
            columns[message.topic].append(sample)
    first_ns = min([samples[0].stamp_ns for samples in columns.values() if samples] + pictures.stamps_ns[:1], default=0)
    return Signals(
        _imu(columns[topics.IMU], first_ns),
        _vehicle(columns[topics.VEHICLE], first_ns),
        _gnss(columns[topics.GNSS], first_ns),
        pictures.signals(first_ns),
        _audio(columns[topics.AUDIO], first_ns),
    )


def derivative(series: Series) -> Series:
    """Change per second, at the middles between samples."""
    step = np.maximum(np.diff(series.stamps_s), 1e-6)
    return Series(0.5 * (series.stamps_s[1:] + series.stamps_s[:-1]), np.diff(series.values) / step)


class _PictureMotion:
    """How pictures move against the one before: median shift of corners (px/s) and mean change of brightness.

    Corners are followed by Lucas-Kanade; phase correlation sticks to whole pixels when a camera turns slowly.
    """

    def __init__(self) -> None:
        self.stamps_ns: list[int] = []
        self._before: NDArray[np.uint8] | None = None
        self._rows: list[tuple[float, ...]] = []

    def see(self, frame: Frame) -> None:
        """Take the next picture, in the order of arrival."""
        assert frame.image is not None
        if self.stamps_ns and frame.stamp_ns <= self.stamps_ns[-1]:
            return
        height, width = frame.image.shape[:2]
        size = (_SMALL_PX, max(round(height * _SMALL_PX / width), 16))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
        before = self._before
        if before is not None and before.shape == grey.shape:
            seconds = (frame.stamp_ns - self.stamps_ns[-1]) / _NS_PER_S
            middle_ns = 0.5 * (frame.stamp_ns + self.stamps_ns[-1])
            change = float(cv2.absdiff(grey, before).mean())
            shift = _shift_px(before, grey)
            if shift is not None:
                self._rows.append((middle_ns, shift[0] / seconds, shift[1] / seconds, change))
        self._before = grey
        self.stamps_ns.append(frame.stamp_ns)

    def signals(self, first_ns: int) -> dict[str, Series]:
        """turn_x, turn_y and change."""
        if len(self._rows) < 2:
            return {}
        rows = np.array(self._rows, np.float64)
        stamps_s = (rows[:, 0] - first_ns) / _NS_PER_S
        return {name: Series(stamps_s, rows[:, i]) for i, name in enumerate(("turn_x", "turn_y", "change"), start=1)}


def _shift_px(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Median movement of the corners; None where hardly one could be followed."""
    corners: Any = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 7)
    if corners is None:
        return None
    where: Any = None  # which OpenCV takes and its stubs do not know
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, where, winSize=(15, 15), maxLevel=3)
    kept = np.ravel(found) == 1
    if kept.sum() < _LEAST_CORNERS:
        return None
    dx, dy = np.median((moved - corners).reshape(-1, 2)[kept], axis=0).tolist()
    return dx, dy


def _imu(samples: list[ImuSample], first_ns: int) -> dict[str, Series]:
    rows = [(*sample.gyro_radps, *sample.accel_mps2) for sample in samples]
    names = ("gyro_x", "gyro_y", "gyro_z", "accel_x", "accel_y", "accel_z")
    return _series([sample.stamp_ns for sample in samples], rows, names, first_ns)


def _vehicle(samples: list[VehicleState], first_ns: int) -> dict[str, Series]:
    stamps_ns = [sample.stamp_ns for sample in samples]
    found = _series(stamps_ns, [(sample.speed_mps,) for sample in samples], ("speed",), first_ns)
    turning = [(sample.stamp_ns, sample.yaw_rate_radps) for sample in samples if sample.yaw_rate_radps is not None]
    steering = [
        (sample.stamp_ns, sample.speed_mps * sample.steering_wheel_angle_rad)
        for sample in samples
        if sample.steering_wheel_angle_rad is not None
    ]
    for name, column in (("yaw_rate", turning), ("steering", steering)):
        found |= _series([stamp for stamp, _ in column], [(value,) for _, value in column], (name,), first_ns)
    return found


def _gnss(samples: list[GnssFix], first_ns: int) -> dict[str, Series]:
    """Speed over ground: of the velocity where the receiver gives one, else of its positions."""
    moving = [(fix.stamp_ns, fix.velocity_enu_mps) for fix in samples if fix.velocity_enu_mps is not None]
    if moving:
        speeds = [(math.hypot(velocity[0], velocity[1]),) for _, velocity in moving]
        return _series([stamp for stamp, _ in moving], speeds, ("speed",), first_ns)
    places = _series(
        [fix.stamp_ns for fix in samples],
        [(fix.latitude_deg, fix.longitude_deg) for fix in samples],
        ("lat", "lon"),
        first_ns,
    )
    if not places:
        return {}
    north, east = derivative(places["lat"]), derivative(places["lon"])
    shrink = math.cos(math.radians(float(places["lat"].values[0])))
    return {"speed": Series(north.stamps_s, _M_PER_DEG * np.hypot(north.values, east.values * shrink))}


def _audio(samples: list[AudioChunk], first_ns: int) -> dict[str, Series]:
    """Onset strength: root of how fast the level rises (dB/s), 100 times a second: no bang outweighs all."""
    levels: list[tuple[float, float]] = []
    for chunk in samples:
        hop = max(chunk.rate_hz // _ONSET_HZ, 1)
        count = len(chunk.pcm) // hop
        blocks = chunk.pcm[: count * hop].reshape(count, hop).astype(np.float64)
        level = 10.0 * np.log10((blocks**2).mean(axis=1) + _QUIETEST**2) if count else []
        stamps = chunk.stamp_ns + (np.arange(count) + 0.5) * hop * (_NS_PER_S / chunk.rate_hz)
        levels += list(zip(stamps.tolist(), np.asarray(level).tolist()))
    found = _series([round(stamp) for stamp, _ in levels], [(level,) for _, level in levels], ("level",), first_ns)
    if not found:
        return {}
    rising = derivative(found["level"])
    return {"onset": Series(rising.stamps_s, np.sqrt(np.maximum(rising.values, 0.0)))}


def _series(
    stamps_ns: list[int], rows: Sequence[tuple[float, ...]], names: tuple[str, ...], first_ns: int
) -> dict[str, Series]:
    """Columns by name, in the order of their stamps, each instant once; {} with fewer than three."""
    if len(rows) < 3:
        return {}
    stamps, kept = np.unique(np.array(stamps_ns, np.int64), return_index=True)
    values = np.array(rows, np.float64)[kept]
    stamps_s = (stamps - first_ns) / _NS_PER_S
    return {name: Series(stamps_s, values[:, i]) for i, name in enumerate(names)}
