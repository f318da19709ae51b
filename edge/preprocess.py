"""FrameSets into tensors: the same code on the vehicle, in replay and in training.

Each function writes into a buffer that it is given and allocates no array that outlives the call.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.samples import AudioChunk, GnssFix, ImuSample, VehicleState
from edge.streams import SECOND

MOTION_CHANNELS: Final = 12
_GRAVITY_MPS2: Final = 9.81
_SPEED_MPS: Final = 30.0
FULL_SCALE: Final = np.float32(1 / 32768)
_HALF_RANGE_M: Final = np.float32(10.0)  # where the first channel of a range image is one half
_HEIGHT_M: Final = np.float32(3.0)


def image_into(out: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Resize a (height, width, 3) BGR picture into `out`, averaging where the ratio is whole.

    Boxes in fractions of the picture hold for both.
    """
    height, width = out.shape[:2]
    whole = image.shape[0] % height == 0 and image.shape[1] % width == 0
    cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_AREA if whole else cv2.INTER_LINEAR)


def pcm_into(out: NDArray[np.float32], chunks: Sequence[AudioChunk], frame_ns: int, rate_hz: int) -> None:
    """The sound up to the frame instant, right-aligned, -1..1; silence where there is none.

    Args:
        out: (samples,) at `rate_hz`.
        chunks: by stamp; their rate may differ from `rate_hz` (area resampling).
    """
    source_hz = chunks[-1].rate_hz
    if chunks[-1].seq - chunks[0].seq == len(chunks) - 1 and chunks[0].rate_hz == source_hz:
        pcm = np.concatenate([chunk.pcm for chunk in chunks])
    else:
        pcm = _placed(chunks, source_hz)
    end_ns = chunks[-1].stamp_ns + len(chunks[-1].pcm) * SECOND // source_hz
    after = max(nearest(end_ns - frame_ns, source_hz), 0)
    wanted = -(-len(out) * source_hz // rate_hz)
    pcm = pcm[max(len(pcm) - after - wanted, 0) : len(pcm) - after]
    if source_hz != rate_hz and len(pcm):
        pcm = resampled(pcm, max((len(pcm) * rate_hz + source_hz // 2) // source_hz, 1))
    pcm = pcm[-len(out) :]
    at = len(out) - len(pcm)
    out[:at] = 0.0
    np.multiply(pcm, FULL_SCALE, out=out[at:], casting="unsafe")


def resampled(pcm: NDArray[np.int16], size: int) -> NDArray[np.float32]:
    """Sound in `size` samples: means where that is fewer, lines between samples where it is more; int16's scale."""
    kind = cv2.INTER_AREA if size < len(pcm) else cv2.INTER_LINEAR
    row: NDArray[np.float32] = cv2.resize(pcm.astype(np.float32)[None], (size, 1), interpolation=kind)[0]
    return row


def nearest(span_ns: int, rate_hz: int) -> int:
    """Samples in a span of time, to the nearest: stamps are cut to whole nanoseconds, so a floor would slip by one."""
    return (span_ns * rate_hz + SECOND // 2) // SECOND


def motion_into(
    out: NDArray[np.float32],
    frame_ns: int,
    window_ns: int,
    imu: Sequence[ImuSample],
    vehicle: Sequence[VehicleState],
    gnss: Sequence[GnssFix],
) -> None:
    """The last moments of motion on a regular grid that ends at the frame instant.

    Args:
        out: (12, steps): accel x, y, z / 9.81; gyro x, y, z rad/s; speed / 30; steering wheel angle / pi; brake;
            GNSS speed / 30; IMU valid; vehicle valid. Absent is 0.
    """
    out.fill(0.0)
    steps = out.shape[1]
    step_ns = window_ns // steps
    if imu:
        _imu_into(out, frame_ns, step_ns, imu)
    if vehicle:
        out[6] = _interpolated(vehicle, frame_ns, "speed_mps") / _SPEED_MPS
        out[7] = _interpolated(vehicle, frame_ns, "steering_wheel_angle_rad") / np.pi
        out[8] = _interpolated(vehicle, frame_ns, "brake")
        out[11] = 1.0
    if gnss and gnss[-1].velocity_enu_mps is not None:
        east, north, _ = gnss[-1].velocity_enu_mps
        out[9] = (east * east + north * north) ** 0.5 / _SPEED_MPS


def _imu_into(out: NDArray[np.float32], frame_ns: int, step_ns: int, imu: Sequence[ImuSample]) -> None:
    steps = out.shape[1]
    stamps = np.array([sample.stamp_ns for sample in imu], dtype=np.int64)
    grid = frame_ns - step_ns * np.arange(steps - 1, -1, -1, dtype=np.int64)
    at = np.searchsorted((stamps[1:] + stamps[:-1]) // 2, grid)  # the nearest, the older of two
    valid = np.abs(stamps[at] - grid) <= step_ns
    flat = array("f")  # four times as fast as an array of tuples
    for i in at.tolist():
        sample = imu[i]
        flat.extend(sample.accel_mps2)
        flat.extend(sample.gyro_radps)
    rows = np.frombuffer(flat, np.float32).reshape(steps, 6)
    rows[:, :3] /= _GRAVITY_MPS2
    rows[~valid] = 0.0
    out[:6] = rows.T
    out[10] = valid


def _interpolated(states: Sequence[Any], frame_ns: int, name: str) -> float:
    """The field at the frame instant between two samples; of the only one; 0 where the bus does not say."""
    first, last = states[0], states[-1]
    value: float | None = getattr(first, name)
    other: float | None = getattr(last, name)
    if value is None or other is None:
        return value or other or 0.0
    span_ns = last.stamp_ns - first.stamp_ns
    return value if span_ns <= 0 else value + (other - value) * ((frame_ns - first.stamp_ns) / span_ns)


def _placed(chunks: Sequence[AudioChunk], rate_hz: int) -> NDArray[np.int16]:
    """Chunks laid out by their stamps, with silence where some are missing."""
    start_ns = chunks[0].stamp_ns
    end = nearest(chunks[-1].stamp_ns - start_ns, rate_hz) + len(chunks[-1].pcm)
    pcm = np.zeros(end, dtype=np.int16)
    for chunk in chunks:
        if chunk.rate_hz != rate_hz:
            continue
        at = nearest(chunk.stamp_ns - start_ns, rate_hz)
        part = chunk.pcm[: end - at]
        pcm[at : at + len(part)] = part
    return pcm


def lidar_into(
    out: NDArray[np.float32],
    points_lidar: NDArray[np.float32],
    azimuth_deg: float,
    highest_deg: float,
    lowest_deg: float,
) -> None:
    """A sweep as a range image: what the LiDAR sees in front of it, left to right and top to bottom.

    The nearest return of a cell counts, the highest of equally near ones, so the order of the points is of no
    consequence. Only sums, quotients and roots are taken, which every machine rounds alike. Cells without a return are
    0 in both channels.

    Args:
        out: (2, rows, columns): 1 / (1 + range / 10 m), 0..1; height over the LiDAR / 3 m, clipped to -1..1.
        points_lidar: (points, 3 or more): x forward, y left, z up, m; further columns, and returns that are not finite
            or at 0 m, are left out.
        azimuth_deg: width of the view, around x.
        highest_deg, lowest_deg: elevation of the upper edge of the first row and of the lower edge of the last one.
    """
    rows, columns = out.shape[1:]
    left, top = _columns(columns, azimuth_deg), _rows(rows, highest_deg, lowest_deg)
    x, y, z = np.asarray(points_lidar[:, :3], np.float32).T
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        turn, slope, range_m = -_turn(x, y), -z / np.sqrt(x * x + y * y), np.sqrt(x * x + y * y + z * z)
        seen = (turn >= left[0]) & (turn < left[-1]) & (slope >= top[0]) & (slope < top[-1]) & (range_m < np.inf)
    column = np.searchsorted(left, turn[seen], side="right") - 1
    row = np.searchsorted(top, slope[seen], side="right") - 1
    cell, range_m, z = row * columns + column, range_m[seen], z[seen] + 0.0  # of 0 and -0 the first would stay
    nearest_m = np.full(rows * columns, np.inf, np.float32)
    np.minimum.at(nearest_m, cell, range_m)
    first = range_m == nearest_m[cell]
    height_m = np.full(rows * columns, -np.inf, np.float32)
    np.maximum.at(height_m, cell[first], z[first])
    height_m[nearest_m == np.inf] = 0.0
    np.divide(_HALF_RANGE_M, _HALF_RANGE_M + nearest_m, out=out[0].reshape(-1))  # of infinity: 0
    np.clip(height_m / _HEIGHT_M, -1.0, 1.0, out=out[1].reshape(-1))


def _turn(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """A number -2..2 that grows with the azimuth as -pi..pi does, without a call whose last bit differs by machine."""
    turn: NDArray[Any] = np.copysign(1 - x / (np.abs(x) + np.abs(y)), y)
    return turn


@lru_cache(maxsize=8)
def _columns(columns: int, azimuth_deg: float) -> NDArray[np.float32]:
    """Edges of the columns from left to right, as `-_turn`."""
    azimuth_rad = np.radians(np.linspace(azimuth_deg / 2, -azimuth_deg / 2, columns + 1))
    edges: NDArray[np.float32] = -_turn(np.cos(azimuth_rad), np.sin(azimuth_rad)).astype(np.float32)
    return edges


@lru_cache(maxsize=8)
def _rows(rows: int, highest_deg: float, lowest_deg: float) -> NDArray[np.float32]:
    """Edges of the rows from top to bottom, as the slope downwards."""
    edges: NDArray[np.float32] = -np.tan(np.radians(np.linspace(highest_deg, lowest_deg, rows + 1))).astype(np.float32)
    return edges
