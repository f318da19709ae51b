"""What each kernel computes, in numpy: the spec that tests and `benchmarks/gpu.py` hold the kernels against.

Where it says float32, sums and products are taken one by one in the kernel's order, so that results agree bit for bit.
Slow on purpose: no trick that would need a proof of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.alignment.kernel_inputs import DtwOptions, LogmelOptions

F32 = NDArray[np.float32]
START, DIAGONAL, UP, LEFT = 0, 1, 2, 3


class DtwPath(NamedTuple):
    """The best path of one pair.

    Attributes:
        cost: infinity without path.
        end: its last column, -1 without path.
        moves: (n, m) uint8, which move led to a cell.
        steps: (k, 2) int32 cells (i, j), ascending.
    """

    cost: float
    end: int
    moves: NDArray[np.uint8]
    steps: NDArray[np.int32]


def dtw(
    a: F32, b: F32, first: NDArray[np.int32], last: NDArray[np.int32], options: DtwOptions, exact: bool = False
) -> DtwPath:
    """One pair; see dtw.cu for the recurrence.

    Args:
        a: (n, channels). b: (m, channels).
        first, last: (n) columns that a row may use, both included.
        exact: in float64 rather than in the kernel's float32.
    """
    number: Any = np.float64 if exact else np.float32
    (n, channels), m = a.shape, len(b)
    infinite, weight = number(np.inf), number(2 if options.symmetric2 else 1)
    total = np.full((n + 1, m + 1), infinite, number)  # with a row and a column of infinity before the first
    moves = np.zeros((n, m), np.uint8)
    local = np.zeros((n, m), number)
    for d in range(channels):
        apart = a[:, None, d].astype(number) - b[None, :, d].astype(number)
        local += np.abs(apart) if options.absolute else apart * apart
    for i in range(n):
        for j in range(max(int(first[i]), 0), min(int(last[i]), m - 1) + 1):
            c, up, left = local[i, j], total[i, j + 1], total[i + 1, j]
            if i == 0 and (j == 0 or options.open_begin):
                total[1, j + 1] = weight * c
                continue
            straight, beside = total[i, j] + weight * c, min(up, left) + c
            total[i + 1, j + 1] = min(straight, beside)
            if min(straight, beside) < infinite:
                moves[i, j] = DIAGONAL if straight <= beside else UP if up <= left else LEFT
    row = total[n, 1:] if n else total[0, 1:]
    end = (int(np.argmin(row)) if options.open_end else m - 1) if n and m else -1
    if end < 0 or row[end] == infinite:
        return DtwPath(float("inf"), -1, moves, np.zeros((0, 2), np.int32))
    return DtwPath(float(row[end]), end, moves, _walk(moves, n - 1, end))


def packed(moves: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(n, m) moves as (n, ceil(m / 16)) words, 2 bits each, low bits first."""
    n, m = moves.shape
    wide = np.zeros((n, -(-m // 16) * 16), np.uint32)
    wide[:, :m] = moves
    shifts = 2 * np.arange(16, dtype=np.uint32)
    words: NDArray[np.uint32] = np.bitwise_or.reduce(wide.reshape(n, -(-m // 16), 16) << shifts, axis=2)
    return words


def resample(
    instants_ns: NDArray[np.int64], stamps_ns: NDArray[np.int64], values: F32, tolerance_ns: int, nearest: bool
) -> tuple[F32, NDArray[np.uint8]]:
    """One stream at instants, float32.

    Args:
        instants_ns: (instants). stamps_ns: (count), ascending. values: (count, channels).

    Returns:
        (instants, channels), and (instants) 1 where the nearest sample is within the tolerance.
    """
    out = np.zeros((len(instants_ns), values.shape[1]), np.float32)
    valid = np.zeros(len(instants_ns), np.uint8)
    for k, instant_ns in enumerate(instants_ns.tolist() if len(stamps_ns) else []):
        after = int(np.searchsorted(stamps_ns, instant_ns, side="right"))
        older, newer = max(after - 1, 0), min(after, len(stamps_ns) - 1)
        past_ns, ahead_ns = instant_ns - int(stamps_ns[older]), int(stamps_ns[newer]) - instant_ns
        valid[k] = min(abs(past_ns), abs(ahead_ns)) <= tolerance_ns
        out[k] = values[older]
        if older != newer and nearest and ahead_ns < past_ns:
            out[k] = values[newer]
        elif older != newer and not nearest and past_ns > 0:
            share = np.float32(past_ns) / np.float32(past_ns + ahead_ns)
            out[k] += (values[newer] - values[older]) * share
    return out, valid


def resample_sound(pcm: NDArray[np.int16], samples: int, in_hz: int, out_hz: int, offset_ns: int = 0) -> F32:
    """Sound at another rate, -1..1, float32; silence outside of the recording."""
    phase = round_half_up(offset_ns * in_hz * out_hz, 10**9)
    out = np.zeros(samples, np.float32)
    for k in range(samples):
        i, rest = divmod(phase + k * in_hz, out_hz)
        older, newer = (np.float32(pcm[at] if 0 <= at < len(pcm) else 0) for at in (i, i + 1))
        out[k] = (older + (newer - older) * (np.float32(rest) / np.float32(out_hz))) * np.float32(1 / 32768)
    return out


def project(
    points_lidar: F32,
    cam_SE3_lidar: F32,
    pinhole: Sequence[float],
    shape: tuple[int, int],
    nearest_m: float,
) -> tuple[F32, F32, NDArray[np.int32]]:
    """The nearest return of each pixel, float32.

    Args:
        points_lidar: (points, 4): x, y, z m, intensity.
        cam_SE3_lidar: (3, 4).
        pinhole: fx, fy, cx, cy px.
        shape: height, width.

    Returns:
        (height, width) depth in m, 0 without return; intensity; index, -1 without return.
    """
    px, py, pz = points_lidar[:, :3].T
    with np.errstate(all="ignore"):
        x, y, z = (row[0] * px + row[1] * py + row[2] * pz + row[3] for row in np.asarray(cam_SE3_lidar, np.float32))
        fx, fy, cx, cy = (np.float32(value) for value in pinhole)
        column = np.floor(fx * (x / z) + cx + np.float32(0.5))
        row = np.floor(fy * (y / z) + cy + np.float32(0.5))
        seen = (z >= np.float32(nearest_m)) & (z < np.inf)
        seen &= (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    depth_m, intensity = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    index = np.full(shape, -1, np.int32)
    for i in np.flatnonzero(seen).tolist():
        at = int(row[i]), int(column[i])
        if index[at] < 0 or z[i] < depth_m[at]:
            depth_m[at], intensity[at], index[at] = z[i], points_lidar[i, 3], i
    return depth_m, intensity, index


def preprocess(
    source: NDArray[np.uint8],
    size: tuple[int, int],
    colour: F32,
    gain: F32,
    bias: F32,
    dtype: str,
    zero_point: int = 0,
) -> NDArray[Any]:
    """One picture as a network's input, float32 until it is stored; see preprocess.cu.

    Args:
        source: (height, width, 3) BGR, or (height * 3 / 2, width) NV12.
        size: height and width of the result.
        colour: (3, 4). gain, bias: (3).
        dtype: int8, float16 or float32.

    Returns:
        (3, out_height, out_width).
    """
    planes = _components(source)
    height, width = planes.shape[1:]
    tall, wide = height // size[0], width // size[1]
    if (tall * size[0], wide * size[1]) == (height, width):
        sums = planes.reshape(3, size[0], tall, size[1], wide).sum((2, 4))
        component = sums.astype(np.float32) / np.float32(tall * wide)
    else:
        (top, bottom, down), (left, right, across) = _taps(height, size[0]), _taps(width, size[1])
        upper = _between(planes[:, top][:, :, left], planes[:, top][:, :, right], across)
        lower = _between(planes[:, bottom][:, :, left], planes[:, bottom][:, :, right], across)
        component = upper + (lower - upper) * down[:, None]
    out = np.empty((3, *size), dtype)
    for c, row in enumerate(np.asarray(colour, np.float32)):
        seen = row[0] * component[0] + row[1] * component[1] + row[2] * component[2] + row[3]
        stored = np.clip(seen, 0, 255) * np.float32(gain[c]) + np.float32(bias[c])
        with np.errstate(over="ignore"):
            out[c] = np.clip(np.rint(stored) + np.float32(zero_point), -128, 127) if dtype == "int8" else stored
    return out


def logmel(pcm: F32, window: F32, bands: F32, steps: int, options: LogmelOptions) -> NDArray[np.float64]:
    """Sound as log-mel, float64.

    Args:
        pcm: (samples). window: (512). bands: (bands, 257).

    Returns:
        (bands, steps).
    """
    size = options.lead + len(pcm) + steps * options.hop + len(window)
    padded = np.zeros(size)
    padded[options.lead : options.lead + len(pcm)] = pcm
    windows = np.stack([padded[s * options.hop :][: len(window)] for s in range(steps)]) * window.astype(np.float64)
    power = np.abs(np.fft.rfft(windows)) ** 2
    level = bands.astype(np.float64) @ power.T
    level = level + options.floor if options.floor_added else np.maximum(level, options.floor)
    return np.asarray((np.log(level) + options.shift) * options.gain)


def agreement(embeddings: F32, present: NDArray[np.uint8]) -> F32:
    """Cosines of every two modalities that are present, float32.

    Args:
        embeddings: (sets, modalities, size). present: (sets, modalities).

    Returns:
        (sets, pairs): (0, 1), (0, 2) ... (1, 2) ...
    """
    modalities = embeddings.shape[1]
    columns = [
        np.where((present[:, i] & present[:, j]) != 0, _cosine(embeddings[:, i], embeddings[:, j]), np.float32(0))
        for i in range(modalities)
        for j in range(i + 1, modalities)
    ]
    return np.stack(columns, 1) if columns else np.zeros((len(embeddings), 0), np.float32)


def round_half_up(numerator: int, denominator: int) -> int:
    """The nearest whole number."""
    return (2 * numerator + denominator) // (2 * denominator)


def _walk(moves: NDArray[np.uint8], i: int, j: int) -> NDArray[np.int32]:
    steps = [(i, j)]
    while moves[i, j] != START:
        move = moves[i, j]
        i, j = i - (move != LEFT), j - (move != UP)
        steps.append((i, j))
    return np.array(steps[::-1], np.int32)


def _components(source: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, height, width): B, G, R, or Y, U, V with each chroma four times."""
    if source.ndim == 3:
        return np.moveaxis(source, 2, 0).astype(np.int64)
    height = source.shape[0] * 2 // 3
    chroma = source[height:].reshape(height // 2, -1, 2).repeat(2, 0).repeat(2, 1)
    return np.stack([source[:height], chroma[..., 0], chroma[..., 1]]).astype(np.int64)


def _taps(size: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], F32]:
    """For each output pixel its two neighbours and the share of the second, between centres at halves."""
    half = np.float32(0.5)
    at = (np.arange(out, dtype=np.float32) + half) * (np.float32(size) / np.float32(out)) - half
    at = np.clip(at, np.float32(0), np.float32(size - 1))
    low = at.astype(np.int64)
    return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)


def _between(a: NDArray[np.int64], b: NDArray[np.int64], share: F32) -> F32:
    return a.astype(np.float32) + (b - a).astype(np.float32) * share


def _cosine(a: F32, b: F32) -> F32:
    length = np.sqrt(_dot(a, a)) * np.sqrt(_dot(b, b))
    with np.errstate(all="ignore"):
        return np.where(length > 0, _dot(a, b) / length, np.float32(0))


def _dot(a: F32, b: F32) -> F32:
    """As a warp sums it: lane l takes components l, l + 32 ...; then halves are added."""
    size = a.shape[1]
    products = np.zeros((len(a), -(-size // 32) * 32), np.float32)
    products[:, :size] = a * b
    lanes = np.zeros((len(a), 32), np.float32)
    for start in range(0, products.shape[1], 32):
        lanes = lanes + products[:, start : start + 32]
    for apart in (16, 8, 4, 2, 1):
        lanes = lanes + lanes[:, np.arange(32) ^ apart]
    return lanes[:, 0]
