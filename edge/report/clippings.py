"""The few pictures and sounds that a page shows, fetched by time from a drive that is not read again as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.drive import topics
from edge.drive.codec import decode
from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError
from edge.report import sound
from edge.report.history import HardScene, History
from edge.report.picture import Picture, shrink
from edge.samples import AudioChunk

FILM_PICTURES: Final = 48
_FILM_WIDTH_PX: Final = 256
_FILM_QUALITY: Final = 62
_PEAK_WIDTH_PX: Final = 640
_PEAK_QUALITY: Final = 82
_SIDE_WIDTH_PX: Final = 320
_SIDE_QUALITY: Final = 70
SIDE_NS: Final = 1_500_000_000
SOUND_BEFORE_NS: Final = 3_500_000_000
SOUND_AFTER_NS: Final = 2_500_000_000
# How far a picture may lie from the instant that it stands for.
_NEAR_NS: Final = 400_000_000
# How long before the decision its picture may have arrived.
_REACH_NS: Final = 1_000_000_000


@dataclass(slots=True)
class SceneClippings:
    """Pictures before, at and after the peak (None where the camera gave none), and the sound around it."""

    before: Picture | None = None
    peak: Picture | None = None
    after: Picture | None = None
    sound: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    sound_start_ns: int = 0


def film(drive: DriveReader, history: History, count: int = FILM_PICTURES) -> list[Picture | None]:
    """Pictures over the whole drive, evenly; [] for a drive without a camera."""
    if topics.CAMERA not in drive.topics:
        return []
    count = min(count, len(history))
    step_ns = history.duration_s * 1e9 / count
    return [
        _picture(drive, history, history.first_ns + round((i + 0.5) * step_ns), _FILM_WIDTH_PX, _FILM_QUALITY)
        for i in range(count)
    ]


def clip(drive: DriveReader, history: History, scene: HardScene) -> SceneClippings:
    """What to show of one scene."""
    found = SceneClippings()
    peak_ns = scene.peak_ns
    if topics.CAMERA in drive.topics:
        before_ns, after_ns = peak_ns - SIDE_NS, peak_ns + SIDE_NS
        found.before = _picture(drive, history, before_ns, _SIDE_WIDTH_PX, _SIDE_QUALITY)
        found.peak = _picture(drive, history, peak_ns, _PEAK_WIDTH_PX, _PEAK_QUALITY)
        found.after = _picture(drive, history, after_ns, _SIDE_WIDTH_PX, _SIDE_QUALITY)
    if topics.AUDIO in drive.topics:
        found.sound, found.sound_start_ns = _sound(drive, history, scene)
    return found


def _picture(drive: DriveReader, history: History, wanted_ns: int, width_px: int, quality: int) -> Picture | None:
    """The picture nearest to an instant, of those on which a decision rested; None where there is none near it."""
    away_ns = np.abs(history.stamps_ns - wanted_ns)
    camera = history.streams.get("camera")
    if camera is not None:
        away_ns = np.where(camera == 0, away_ns, np.iinfo(np.int64).max)
    row = int(away_ns.argmin())
    stamp_ns, emitted_ns = int(history.stamps_ns[row]), int(history.emitted_ns[row])
    if abs(stamp_ns - wanted_ns) > _NEAR_NS:
        return None
    best: tuple[int, bytes] | None = None
    for message in drive.messages([topics.CAMERA], max(emitted_ns - _REACH_NS, 0), emitted_ns + 1):
        off_ns = abs(message.capture_ns - stamp_ns)
        if off_ns <= _NEAR_NS and (best is None or off_ns < best[0]):
            best = off_ns, message.payload
    if best is None:
        return None
    try:
        frame = decode(topics.CAMERA, best[1], 0, pictures=False)
        return shrink(frame.jpeg, width_px, quality)  # type: ignore[union-attr]
    except DriveFormatError:
        return None


def _sound(drive: DriveReader, history: History, scene: HardScene) -> tuple[NDArray[np.float32], int]:
    end_ns = history.first_ns + round(history.duration_s * 1e9)
    start_ns = max(scene.peak_ns - SOUND_BEFORE_NS, history.first_ns)
    end_ns = min(scene.peak_ns + SOUND_AFTER_NS, end_ns)
    # The peak's decision left when its sound had arrived; what is earlier or later came so much earlier or later.
    peak_emitted_ns = scene.peak.emitted_ns if scene.peak is not None else scene.from_ns
    arrivals = (
        max(peak_emitted_ns - SOUND_BEFORE_NS - _REACH_NS, 0),
        peak_emitted_ns + SOUND_AFTER_NS + _REACH_NS,
    )
    chunks: list[AudioChunk] = []
    for message in drive.messages([topics.AUDIO], *arrivals):
        try:
            chunk = decode(topics.AUDIO, message.payload, message.sequence)
        except DriveFormatError:
            continue
        if isinstance(chunk, AudioChunk) and len(chunks) < 20_000:
            chunks.append(chunk)
    heard = any(start_ns - _REACH_NS < chunk.stamp_ns < end_ns for chunk in chunks)
    return (sound.stretch(chunks, start_ns, end_ns), start_ns) if heard else (np.zeros(0, np.float32), start_ns)
