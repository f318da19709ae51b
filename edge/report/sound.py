"""Sound for a page: one rate, a WAV that plays anywhere, its outline and its spectrogram."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.samples import AudioChunk

RATE_HZ: Final = 16_000
SILENT_DBFS: Final = -90.0
# Sirens, horns and voices lie below.
_TOP_HZ: Final = 4_000
_WINDOW: Final = 512
_HOP: Final = 160
# Loudest and quietest that the picture tells apart, dB full scale of a bin.
_CEILING_DB: Final = -10.0
_FLOOR_DB: Final = -80.0
# Longer blocks would let one message fill the memory.
_MAX_BLOCK_SAMPLES: Final = 1 << 21


def level_dbfs(pcm: NDArray[np.int16]) -> float:
    """Root mean square of (n,) int16 samples, dB full scale."""
    if not len(pcm):
        return SILENT_DBFS
    power = float(np.mean(np.square(pcm, dtype=np.float32))) / 32768.0**2
    return max(10.0 * float(np.log10(max(power, 1e-12))), SILENT_DBFS)


def stretch(chunks: Iterable[AudioChunk], start_ns: int, end_ns: int) -> NDArray[np.float32]:
    """The sound between two instants.

    Returns:
        (n,) float32, -1..1, at RATE_HZ; zeros where nothing was recorded.
    """
    out = np.zeros(max((end_ns - start_ns) * RATE_HZ // 1_000_000_000, 0), np.float32)
    for chunk in chunks:
        if not 0 < len(chunk.pcm) <= _MAX_BLOCK_SAMPLES:
            continue
        block = _resampled(chunk.pcm.astype(np.float32) / 32768.0, chunk.rate_hz)
        at = (chunk.stamp_ns - start_ns) * RATE_HZ // 1_000_000_000
        low, high = max(at, 0), min(at + len(block), len(out))
        if low < high:
            out[low:high] = block[low - at : high - at]
    return out


def wav(samples: NDArray[np.float32]) -> bytes:
    """(n,) float32 at RATE_HZ as a mono 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes((np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return file.getvalue()


def outline(samples: NDArray[np.float32], columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest sample of each of at most `columns` equal parts."""
    columns = min(columns, len(samples))
    if not columns:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    starts = np.linspace(0, len(samples), columns, endpoint=False).astype(np.intp)
    return np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)


def spectrogram_jpeg(samples: NDArray[np.float32], width_px: int = 560, height_px: int = 72) -> bytes:
    """0..4 kHz over time as a picture, in a colour scale that the colour-blind can read; b"" where it is too short."""
    if len(samples) < _WINDOW:
        return b""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    window = np.hanning(_WINDOW).astype(np.float32)
    bins = _WINDOW * _TOP_HZ // RATE_HZ
    power = np.abs(np.fft.rfft(frames * window, axis=1)[:, :bins]) / (_WINDOW / 4)
    level_db = 20.0 * np.log10(np.maximum(power, 1e-6))
    shade = np.clip((level_db - _FLOOR_DB) / (_CEILING_DB - _FLOOR_DB), 0.0, 1.0)
    picture = (shade.T[::-1] * 255.0).astype(np.uint8)
    coloured = cv2.applyColorMap(
        cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA), cv2.COLORMAP_CIVIDIS
    )
    _, jpeg = cv2.imencode(".jpg", coloured, [cv2.IMWRITE_JPEG_QUALITY, 78])
    return bytes(jpeg)


def _resampled(block: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """One block at RATE_HZ, through its spectrum: nothing above half the new rate folds back."""
    if rate_hz == RATE_HZ:
        return block
    count = max(len(block) * RATE_HZ // rate_hz, 1)
    spectrum = np.fft.rfft(block)
    resampled = np.fft.irfft(spectrum[: count // 2 + 1], count) * (count / len(block))
    return resampled.astype(np.float32)
