"""Pictures and sound of a media file, on its own clock, through PyAV (FFmpeg).

Pictures become JPEG later, each standing alone, so that a clip may start at any of them. Sound becomes 16-bit mono at
its own rate in blocks of 20 ms; where the file's sound has a hole, the next block starts at its true instant.

Media time 0 is written as `ORIGIN_NS`, so that samples from just before the first picture keep a stamp above 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.importers.recording import MAX_STAMP_NS, NS_PER_S, Skipped
from edge.samples import AudioChunk, Frame

ORIGIN_NS: Final = NS_PER_S
BLOCK_S: Final = 0.02
# Within the first, stamps follow the sample count (containers round theirs). Beyond the second the sound has a hole at
# once, between them only if it stays so: Vorbis stamps are off by up to 45 ms around a block switch.
JITTER_NS: Final = 5_000_000
HOLE_NS: Final = 100_000_000
HOLE_BLOCKS: Final = 8
# A track that ends this much before its header says is named; containers round and decoders drop a few samples.
END_NS: Final = NS_PER_S
MAX_PIXELS: Final = 64_000_000
# Pixel formats whose first plane is the brightness, a byte a pixel.
_PLANAR: Final = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12"})
# Media containers that are found by content. FFmpeg would take text files for terminal art, and playlists for an order
# to open other files and hosts.
_CONTAINERS: Final = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,asf,mxf,ivf,m4v,h264,hevc,mjpeg,ogg,wav,w64,aiff,caf,flac,mp3,aac"
)
_OPTIONS: Final = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open container; FFmpeg's errors inside the block become one line.

    Raises:
        SourceError: no media file, or one that breaks off.
    """
    try:
        with av.open(str(path), options=_OPTIONS, metadata_errors="replace") as container:
            yield container
    except (av.error.FFmpegError, ValueError, IndexError, OverflowError, MemoryError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path}: expected a readable media file, got: {detail}") from None


def check_whole(path: Path) -> None:
    """Refuses an MP4 or MOV whose boxes reach beyond the end of the file.

    Raises:
        SourceError: the file was cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= size:
            file.seek(at)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:  # to the end of the file
                return
            if length < 8 or at + length > size:
                raise SourceError(
                    f"{path}: expected {length} bytes of {kind.decode('latin-1')!r} at byte {at}, got {size - at}"
                )
            at += length


def span_ns(start: int, time_base: Fraction) -> int:
    """An instant or a length in units of `time_base`, as ns."""
    return round(start * Fraction(time_base) * NS_PER_S)


def check_end(stream: Any, last_ns: int, skipped: Skipped, name: str) -> None:
    """Names the end of a track that its header promises and that could not be read."""
    if stream.duration and stream.time_base:
        promised_ns = ORIGIN_NS + span_ns((stream.start_time or 0) + stream.duration, stream.time_base)
        if promised_ns - last_ns > END_NS:
            skipped.stream(
                name, f"the last {(promised_ns - last_ns) / NS_PER_S:.1f} s that its header promises are absent"
            )


def frames(path: Path, stream_index: int, skipped: Skipped, name: str, *, grey: bool = False) -> Iterator[Frame]:
    """The pictures of one stream, BGR (or grey), upright and in the order of their instants; JPEG is the writer's."""
    last_ns, seq = -MAX_STAMP_NS, 0
    with opened(path) as container:
        stream = container.streams[stream_index]
        stream.thread_type = "NONE" if stream.codec_context.width * stream.codec_context.height < 1 << 16 else "AUTO"
        for picture in container.decode(stream):
            if picture.width * picture.height > MAX_PIXELS:
                raise SourceError(f"{path}: expected at most {MAX_PIXELS} pixels, got {picture.width}x{picture.height}")
            if picture.pts is None or picture.time_base is None:
                skipped.count(name, "picture without an instant")
                continue
            stamp_ns = ORIGIN_NS + span_ns(picture.pts, picture.time_base)
            if stamp_ns <= last_ns:
                skipped.count(name, "picture not later than the one before")
                continue
            last_ns = stamp_ns
            image = _brightness(picture) if grey else picture.to_ndarray(format="bgr24")
            yield Frame(stamp_ns, seq, _upright(image, picture.rotation))
            seq += 1
        check_end(stream, last_ns, skipped, name)


def _upright(image: NDArray[np.uint8], rotation_deg: int) -> NDArray[np.uint8]:
    """A picture as its display matrix wants it: turned counterclockwise. Phones film on their side."""
    quarters = round(rotation_deg / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _brightness(picture: Any) -> NDArray[np.uint8]:
    """(height, width) of a picture as it was coded; most codecs have that as a plane of its own."""
    if picture.format.name not in _PLANAR:
        grey: NDArray[np.uint8] = picture.to_ndarray(format="gray")
        return grey
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: picture.height, : picture.width].copy()  # the decoder takes the plane again


def sound(path: Path, stream_index: int, skipped: Skipped, name: str) -> Iterator[AudioChunk]:
    """The sound of one stream as 16-bit mono blocks; channels are averaged in integers."""
    blocks = _Blocks()
    with opened(path) as container:
        stream = container.streams[stream_index]
        resampler = None
        for block in container.decode(stream):
            if resampler is None:
                resampler = av.AudioResampler(format="s16", layout=block.layout, rate=block.sample_rate)
            if not 1_000 <= block.sample_rate <= 384_000:
                raise SourceError(f"{path}: expected sound of 1..384 kHz, got {block.sample_rate} Hz")
            stamp_ns = None if block.pts is None else ORIGIN_NS + span_ns(block.pts, block.time_base)
            for converted in resampler.resample(block):
                yield from blocks.add(stamp_ns, converted.sample_rate, mono(converted))
                stamp_ns = None
        yield from blocks.flush()
        check_end(stream, blocks.end_ns, skipped, name)


def mono(block: Any) -> NDArray[np.int16]:
    """(samples,) int16: the mean of an interleaved s16 block's channels, rounded down."""
    channels = len(block.layout.channels)
    pcm: NDArray[np.int16] = block.to_ndarray().reshape(-1)
    if channels == 1:
        return pcm.copy()
    mean: NDArray[np.int32] = pcm.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels
    return mean.astype(np.int16)


class _Blocks:
    """Cuts a run of samples into blocks of 20 ms and restarts the run at a hole or at a new rate."""

    def __init__(self) -> None:
        self._run_ns: int | None = None  # instant of the run's first sample
        self._taken = 0  # samples of the run that left in blocks
        self._rate_hz = 0
        self._seq = 0
        self._off = 0  # decoded blocks in a row whose stamp was off
        self._waiting: NDArray[np.int16] = np.zeros(0, np.int16)

    def add(self, stamp_ns: int | None, rate_hz: int, pcm: NDArray[np.int16]) -> Iterator[AudioChunk]:
        """Takes decoded samples; stamp_ns None continues the run."""
        expected_ns = self._instant(self._taken + len(self._waiting))
        off_ns = 0 if stamp_ns is None else abs(stamp_ns - expected_ns)
        self._off = self._off + 1 if off_ns > JITTER_NS else 0
        hole = off_ns > HOLE_NS or self._off >= HOLE_BLOCKS
        if stamp_ns is not None and (self._run_ns is None or rate_hz != self._rate_hz or hole):
            yield from self.flush()
            self._run_ns, self._taken, self._rate_hz = max(stamp_ns, expected_ns), 0, rate_hz
        elif self._run_ns is None:
            self._run_ns, self._rate_hz = ORIGIN_NS, rate_hz
        self._waiting = np.concatenate([self._waiting, pcm])
        size = round(BLOCK_S * rate_hz)
        while len(self._waiting) >= size:
            yield self._take(size)

    def flush(self) -> Iterator[AudioChunk]:
        """What is left, as one short block."""
        if len(self._waiting):
            yield self._take(len(self._waiting))

    @property
    def end_ns(self) -> int:
        """The end of what left."""
        return self._instant(self._taken)

    def _take(self, size: int) -> AudioChunk:
        chunk = AudioChunk(self._instant(self._taken), self._seq, self._rate_hz, self._waiting[:size])
        self._waiting = self._waiting[size:]
        self._taken += size
        self._seq += 1
        return chunk

    def _instant(self, samples: int) -> int:
        if self._run_ns is None or not self._rate_hz:
            return 0
        return self._run_ns + samples * NS_PER_S // self._rate_hz
