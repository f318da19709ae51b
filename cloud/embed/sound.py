"""Sounds that people hand in: WAV by the standard library, FLAC and OGG too where `soundfile` is installed."""

from __future__ import annotations

import wave
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.embed.refusals import malformed, unsupported
from edge.preprocess import FULL_SCALE, resampled

MAX_SECONDS: Final = 60.0
MAX_CHANNELS: Final = 16
RATES_HZ: Final = (1_000, 384_000)
FULL: Final = 32767.0


def read_sound(content: bytes) -> tuple[NDArray[np.int16], int]:
    """Sound of one channel, the mean of all, and its rate in Hz.

    Raises:
        Refused: it is no sound file, or longer than a minute.
    """
    if content[:4] not in (b"RIFF", b"fLaC", b"OggS"):
        raise malformed(f"sound: expected WAV, FLAC or OGG, got {len(content)} bytes that begin with {content[:4]!r}")
    if find_spec("soundfile") is not None:
        return _by_soundfile(content)
    if content[:4] != b"RIFF":
        raise unsupported("sound: expected WAV, got FLAC or OGG, for which the package soundfile is not installed here")
    return _by_wave(content)


def windows(pcm: NDArray[np.int16], source_hz: int, rate_hz: int, samples: int) -> NDArray[np.float32]:
    """A sound as (windows, samples) at the model's rate, -1..1, one each half a window; short ones end with the sound.

    As the vehicle hears it: `resampled` is the loop's.
    """
    row: NDArray[Any] = pcm
    if source_hz != rate_hz:
        row = resampled(pcm, max((len(pcm) * rate_hz + source_hz // 2) // source_hz, 1))
    row = np.multiply(row, FULL_SCALE, dtype=np.float32)
    if len(row) <= samples:
        return np.concatenate((np.zeros(samples - len(row), np.float32), row))[None]
    ends = np.arange(len(row), samples - 1, -(samples // 2))[::-1]
    return np.stack([row[end - samples : end] for end in ends])


def _by_soundfile(content: bytes) -> tuple[NDArray[np.int16], int]:
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(content)) as file:
            rate_hz, channels = _checked(file.samplerate, file.channels)
            parts: list[NDArray[Any]] = []
            length = 0
            while len(block := file.read(rate_hz, "float32", always_2d=True)):
                parts.append(block.mean(axis=1, dtype=np.float32))
                length = _short_enough(length + len(block), rate_hz)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise malformed(f"sound: expected a whole file, got: {' '.join(str(error).split())[:200]}") from None
    return _int16(parts, channels), rate_hz


def _by_wave(content: bytes) -> tuple[NDArray[np.int16], int]:
    try:
        with wave.open(BytesIO(content)) as file:
            rate_hz, channels = _checked(file.getframerate(), file.getnchannels())
            _short_enough(file.getnframes(), rate_hz)
            width, raw = file.getsampwidth(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise malformed(f"sound: expected a WAV of PCM, got: {error}") from None
    if width != 2:
        raise unsupported(
            f"sound: expected 16 bits a sample, got {8 * width}, for which soundfile is not installed here"
        )
    whole = len(raw) // (2 * channels) * 2 * channels
    values = np.frombuffer(raw[:whole], "<i2").reshape(-1, channels).mean(axis=1, dtype=np.float32) / (FULL + 1)
    return _int16([values], channels), rate_hz


def _int16(parts: list[NDArray[Any]], channels: int) -> NDArray[np.int16]:
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(values):
        raise malformed(f"sound: expected samples, got none of {channels} channels")
    if not np.isfinite(values).all():
        raise malformed("sound: expected finite samples, got others")
    return np.clip(np.rint(values * (FULL + 1)), -FULL - 1, FULL).astype(np.int16)


def _checked(rate_hz: int, channels: int) -> tuple[int, int]:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or not 1 <= channels <= MAX_CHANNELS:
        raise malformed(
            f"sound: expected 1..{MAX_CHANNELS} channels of {RATES_HZ[0]}..{RATES_HZ[1]} Hz, "
            f"got {channels} of {rate_hz} Hz"
        )
    return rate_hz, channels


def _short_enough(length: int, rate_hz: int) -> int:
    if length > MAX_SECONDS * rate_hz:
        raise malformed(f"sound: expected at most {MAX_SECONDS:g} s, got more")
    return length
