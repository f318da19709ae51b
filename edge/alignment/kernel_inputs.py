"""What the kernels of alignment take: arrays on the device, options, constants. `launch.py` checks and queues them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS: Final = 257  # of a spectrum of 512 samples


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A C-contiguous array in device memory.

    Attributes:
        pointer: its address.
        shape: of its elements.
        dtype: as numpy names it.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class DtwInput:
    """Pairs of sequences and the cells that their paths may use; see dtw.cu.

    Attributes:
        a: (pairs, rows, channels) float32.
        b: (pairs, columns, channels) float32.
        a_length, b_length: (pairs) int32, at most rows and columns: the caller's duty, they are on the device.
        first, last: (pairs or 1, rows) int32, the columns that a row may use, both included.
    """

    a: DeviceArray
    b: DeviceArray
    a_length: DeviceArray
    b_length: DeviceArray
    first: DeviceArray
    last: DeviceArray


@dataclass(frozen=True, slots=True)
class DtwOptions:
    """How a path may step, start and end, and what a cell costs."""

    symmetric2: bool = True  # a diagonal step counts twice; else once (symmetric1)
    absolute: bool = False  # |a - b| summed over channels; else squares
    open_begin: bool = False
    open_end: bool = False


@dataclass(frozen=True, slots=True)
class StreamArrays:
    """One stream of samples for `Kernels.resample`.

    Attributes:
        stamps_ns: (count) int64, ascending.
        values: (count, channels) float32.
        out: (instants, channels) float32.
        valid: (instants) uint8.
        tolerance_ns: an instant is valid if its nearest sample is no farther.
        nearest: take that sample; else a line between the two around it.
    """

    stamps_ns: DeviceArray
    values: DeviceArray
    out: DeviceArray
    valid: DeviceArray
    tolerance_ns: int
    nearest: bool = False


@dataclass(frozen=True, slots=True)
class PinholeCamera:
    """Where the camera is, seen from the LiDAR, and how it maps.

    Attributes:
        cam_SE3_lidar: (3, 4) rotation and translation in m.
        fx_px, fy_px, cx_px, cy_px: with pixel centres at whole numbers.
    """

    cam_SE3_lidar: NDArray[np.floating[Any]]
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float


@dataclass(frozen=True, slots=True)
class Colours:
    """What becomes of a resized pixel; see preprocess.cu.

    Attributes:
        matrix: (3, 4): the network's channels from the source's components and 1, in 0..255.
        scale, offset: (3) of the network's input: colour * scale + offset.
        step, zero_point: of an int8 input: real value = (stored - zero_point) * step.
    """

    matrix: ArrayLike
    scale: ArrayLike = (1.0, 1.0, 1.0)
    offset: ArrayLike = (0.0, 0.0, 0.0)
    step: float = 1.0
    zero_point: int = 0


RGB_OF_BGR: Final = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
RGB_OF_BT601: Final = (  # limited range, as cameras and OpenCV have it. Ref: ITU-R BT.601
    (1.164383, 0.0, 1.596027, -222.921586),
    (1.164383, -0.391762, -0.812968, 135.575298),
    (1.164383, 2.017232, 0.0, -276.835856),
)


@dataclass(frozen=True, slots=True)
class LogmelTables:
    """Constants of `logmel`, on the device; `logmel_tables` makes them."""

    window: DeviceArray
    twiddle: DeviceArray
    first: DeviceArray
    count: DeviceArray
    offset: DeviceArray
    weights: DeviceArray


@dataclass(frozen=True, slots=True)
class LogmelOptions:
    """Windows every `hop` samples, the first `lead` before the sound; (log(power) + shift) * gain."""

    hop: int = 320
    lead: int = 192
    floor: float = 1e-7
    floor_added: bool = True  # else the larger of power and floor
    shift: float = 8.0
    gain: float = 0.125


def logmel_tables(bands: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
    """Host arrays of LogmelTables, by field.

    Args:
        bands: (bands, 257) weights of the power spectrum's bins; each row's bins other than 0 lie side by side.
    """
    n = np.arange(512)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 512)
    angle = -2 * np.pi * np.arange(BINS) / 512
    first = [int(np.flatnonzero(row)[0]) if row.any() else 0 for row in bands]
    after = [int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0 for row in bands]
    count = np.subtract(after, first).astype(np.int32)
    kept = [row[start:end] for row, start, end in zip(bands, first, after)]
    return {
        "window": (hann * (2.0 / hann.sum())).astype(np.float32),
        "twiddle": np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32),
        "first": np.array(first, np.int32),
        "count": count,
        "offset": (np.cumsum(count) - count).astype(np.int32),
        "weights": np.concatenate(kept).astype(np.float32),
    }
