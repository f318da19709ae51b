"""What pages show of a scene's clip: its frames one by one, its sound, and what was decided over time.

A clip is a drive that a vehicle made: nothing in it is believed. It is read where it lies in a local folder; of a store
at a distance a copy is kept for a while.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cloud.errors import CloudError
from cloud.objects import Objects
from cloud.web.cache import Cache
from edge.decision import DetectedObject
from edge.drive import codec, topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.errors import DriveDamaged, DriveFormatError, RoadfuseError
from edge.report import sound
from edge.report.gather import Gatherer
from edge.report.history import History
from edge.report.picture import shrink
from roadfuse.v1 import decision_pb2

MAX_FRAMES: Final = 12_000
MAX_SOUND_S: Final = 120.0
# Of a clip whose pictures can't be read.
USUAL_SIZE_PX: Final = (640, 384)
THUMB_WIDTH_PX: Final = 400
STRIP_WIDTH_PX: Final = 176
# Boxes below this are guesses.
_LIKELY: Final = 0.5
_MAX_BOXES: Final = 24
# Clips read at once: each holds a few chunks, unpacked.
_AT_ONCE: Final = 2
_REMEMBERED: Final = 12
_LIBRARY_BYTES: Final = 2 << 30
_PICTURES_BYTES: Final = 256 << 20


class ClipError(CloudError):
    """A clip that is not here, or can't be read."""


@dataclass(frozen=True, slots=True)
class Reel:
    """A clip, read once.

    Attributes:
        stamps_ns: (frames,) of its camera frames that are pictures, in order.
        arrivals_ns: (frames,) where each lies in the file.
        boxes: a frame's objects; of those that have some.
        history: of its decisions; None where it carries none.
        size_px: width and height of its pictures, in which the boxes count.
        sound_ns: first instant of its sound and the one behind its last; None where it is silent.
    """

    stamps_ns: NDArray[np.int64]
    arrivals_ns: NDArray[np.int64]
    boxes: dict[int, list[DetectedObject]]
    history: History | None
    sound_ns: tuple[int, int] | None
    size_px: tuple[int, int]
    damages: tuple[str, ...]

    @property
    def first_ns(self) -> int:
        """Where its time begins."""
        if len(self.stamps_ns):
            return int(self.stamps_ns[0])
        return self.history.first_ns if self.history is not None else self.sound_ns[0] if self.sound_ns else 0

    @property
    def duration_s(self) -> float:
        """From there to its last frame or decision."""
        ends = [self.first_ns]
        if len(self.stamps_ns):
            ends.append(int(self.stamps_ns[-1]))
        if self.history is not None:
            ends.append(int(self.history.stamps_ns[-1]))
        return max(max(ends) - self.first_ns, 1) / 1e9

    def seconds(self, instant_ns: int) -> float:
        """Since its first frame."""
        return (instant_ns - self.first_ns) / 1e9

    def frame_at(self, instant_ns: int) -> int:
        """The frame nearest to an instant."""
        return int(np.abs(self.stamps_ns - instant_ns).argmin()) if len(self.stamps_ns) else 0


def version(object_key: str) -> str:
    """A name for what is made of a clip. Scene numbers are no such name: an older catalogue gives them out again."""
    return hashlib.sha256(object_key.encode()).hexdigest()[:32]


class Clips:
    """Clips by where they lie.

    Args:
        objects: where they are kept.
        folder: the same as a local folder; None where it is none.
        cache: folder for what is made of them.
    """

    def __init__(self, objects: Objects, folder: Path | None, cache: Path) -> None:
        self._objects = objects
        self._folder = folder
        self._library = Cache(cache / "clips", _LIBRARY_BYTES)
        self._pictures = Cache(cache / "pictures", _PICTURES_BYTES)
        self._reading = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._reels: OrderedDict[str, Reel] = OrderedDict()

    def path(self, object_key: str) -> Path:
        """The clip as a file.

        Raises:
            ObjectError: it can't be had.
        """
        if self._folder is not None:
            return self._folder / object_key
        return self._library.file(f"{version(object_key)}.mcap", lambda path: self._download(object_key, path))

    def reel(self, object_key: str) -> Reel:
        """The clip, read.

        Raises:
            ClipError: it is none.
        """
        with self._lock:
            if object_key in self._reels:
                self._reels.move_to_end(object_key)
                return self._reels[object_key]
        with self._reading:
            reel = self._read(object_key)
        with self._lock:
            self._reels[object_key] = reel
            while len(self._reels) > _REMEMBERED:
                self._reels.popitem(last=False)
        return reel

    def frame(self, object_key: str, number: int) -> bytes:
        """A camera frame as it was recorded, JPEG.

        Raises:
            ClipError: no such frame, or it is no picture.
        """
        reel = self.reel(object_key)
        if not 0 <= number < len(reel.stamps_ns):
            raise ClipError(f"expected a frame from 0 to {len(reel.stamps_ns) - 1}, got {number}")
        arrival_ns, stamp_ns = int(reel.arrivals_ns[number]), int(reel.stamps_ns[number])
        with self._open(object_key) as drive:
            for message in drive.messages([topics.CAMERA], arrival_ns, arrival_ns + 1):
                sample: Any = codec.decode(message.topic, message.payload, message.sequence, pictures=False)
                if sample.stamp_ns == stamp_ns and sample.jpeg.startswith(b"\xff\xd8"):
                    return bytes(sample.jpeg)
        raise ClipError(f"frame {number}: expected a JPEG, got none")

    def small_frame(self, object_key: str, number: int, width_px: int) -> bytes:
        """The same, no wider than `width_px`; kept for a while."""
        name = f"{version(object_key)}-{number}-{width_px}.jpg"
        return self._pictures.content(name, lambda: shrink(self.frame(object_key, number), width_px, quality=78).jpeg)

    def thumb(self, object_key: str, peak_ns: int) -> bytes:
        """The frame at the peak, small; kept for a while."""

        def make() -> bytes:
            reel = self.reel(object_key)
            return shrink(self.frame(object_key, reel.frame_at(peak_ns)), THUMB_WIDTH_PX, quality=80).jpeg

        return self._pictures.content(f"{version(object_key)}-thumb.jpg", make)

    def sound(self, object_key: str) -> NDArray[np.float32]:
        """Its sound from the first frame to the last, (n,) float32 at edge.report.sound.RATE_HZ.

        Raises:
            ClipError: it is silent.
        """
        reel = self.reel(object_key)
        if reel.sound_ns is None:
            raise ClipError("expected a clip with sound, got a silent one")
        start_ns, end_ns = sound_span_ns(reel)
        with self._reading, self._open(object_key) as drive:
            return sound.stretch(_chunks(drive), start_ns, end_ns)

    def sound_file(self, object_key: str) -> Path:
        """The sound as a WAV file; kept for a while."""
        name = f"{version(object_key)}-sound.wav"
        return self._pictures.file(name, lambda path: _write(path, sound.wav(self.sound(object_key))))

    def outline(self, object_key: str, draw: Callable[[NDArray[np.float32]], str]) -> str:
        """The sound as a drawing, by `draw`; kept for a while.

        Raises:
            ClipError: it is silent.
        """
        name = f"{version(object_key)}-sound.svg"
        return self._pictures.content(name, lambda: draw(self.sound(object_key)).encode()).decode()

    def _read(self, object_key: str) -> Reel:
        damages: list[DriveDamaged] = []
        frames: list[tuple[int, int]] = []
        boxes: dict[int, list[DetectedObject]] = {}
        heard: list[tuple[int, int]] = []
        size_px: tuple[int, int] | None = None
        gatherer = Gatherer()
        with self._open(object_key) as drive:
            drive.on_damage = damages.append
            for message in drive.messages([topics.CAMERA, topics.AUDIO, topics.GNSS, topics.VEHICLE, topics.DECISION]):
                if message.topic == topics.CAMERA:
                    frame_px = _size_px(message)
                    if frame_px is None:  # nothing to be shown
                        continue
                    frames.append((message.capture_ns, message.arrival_ns))
                    size_px = size_px or frame_px
                    if len(frames) > MAX_FRAMES:
                        raise ClipError(f"expected a clip of at most {MAX_FRAMES} frames, got more")
                    continue
                gatherer.add(message)
                if message.topic == topics.DECISION:
                    stamp_ns, found = _objects(message.payload)
                    if found:
                        boxes[stamp_ns] = found
                elif message.topic == topics.AUDIO:
                    heard.append((message.capture_ns, message.arrival_ns))
        stamps = np.array(sorted(frames), np.int64).reshape(-1, 2)
        return Reel(
            stamps_ns=stamps[:, 0],
            arrivals_ns=stamps[:, 1],
            boxes=boxes,
            history=gatherer.finish() if gatherer.frames else None,
            sound_ns=(min(heard)[0], max(heard)[0]) if heard else None,
            size_px=size_px or USUAL_SIZE_PX,
            damages=tuple(f"{damage} (byte {damage.offset})" for damage in damages[:5]),
        )

    @contextmanager
    def _open(self, object_key: str) -> Iterator[DriveReader]:
        try:
            with DriveReader(self.path(object_key)) as drive:
                yield drive
        except ClipError:
            raise
        except (RoadfuseError, DecodeError, ValueError) as error:
            raise ClipError(f"the clip can't be read: {_line(error)}") from None
        except OSError as error:
            raise ClipError(f"the clip can't be read: {error.strerror or type(error).__name__}") from None

    def _download(self, object_key: str, path: Path) -> None:
        self._objects.download(object_key, path)


def sound_span_ns(reel: Reel) -> tuple[int, int]:
    """Which part of a clip its sound is played for: as long as its frames last, so that both share one clock."""
    end_ns = reel.first_ns + round(min(reel.duration_s, MAX_SOUND_S) * 1e9)
    return reel.first_ns, end_ns


def _chunks(drive: DriveReader) -> Iterator[Any]:
    for message in drive.messages([topics.AUDIO]):
        try:
            yield codec.decode(message.topic, message.payload, message.sequence)
        except DriveFormatError:
            continue


def _size_px(message: DriveMessage) -> tuple[int, int] | None:
    """Of a camera frame, by the head of its picture; None where it is none."""
    try:
        sample: Any = codec.decode(message.topic, message.payload, message.sequence, pictures=False)
        height, width, *_ = simplejpeg.decode_jpeg_header(sample.jpeg)
    except (DriveFormatError, ValueError):
        return None
    return int(width), int(height)


def _objects(payload: bytes) -> tuple[int, list[DetectedObject]]:
    decision = decision_pb2.Decision.FromString(payload)
    found = [
        DetectedObject(o.name, o.probability, o.left_px, o.top_px, o.width_px, o.height_px, o.kind)
        for o in decision.objects
        if _LIKELY <= o.probability <= 1.0 and all(map(np.isfinite, (o.left_px, o.top_px, o.width_px, o.height_px)))
    ]
    return codec.timestamp_ns(decision.timestamp), found[:_MAX_BOXES]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _line(error: Exception) -> str:
    """What went wrong, without where the file lies."""
    return str(error).split(".mcap: ", 1)[-1].splitlines()[0] if str(error) else type(error).__name__
