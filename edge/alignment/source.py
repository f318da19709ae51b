"""What alignment needs of a recording: pictures, small and grey unless colour is asked for, blocks of sound, motion.

A drive of our own is read as it is; anything that `roadfuse import` takes is read through its importer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.alignment.activity import SMALL_WIDTH_PX
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import AlignmentError, DriveDamaged, DriveFormatError
from edge.importers import detect
from edge.importers.recording import Options
from edge.samples import AudioChunk, Frame, ImuSample

_BOTH: Final = (topics.CAMERA, topics.AUDIO)
_WANTED: Final = (*_BOTH, topics.IMU)
_MOST_LINES: Final = 20
_SCHEMAS: Final = frozenset(schema.DESCRIPTOR.full_name for schema in topics.SCHEMAS.values())


class Source:
    """Reads pictures, sound and motion of one file, from its start to its end, once or more often.

    Args:
        path: a drive, or what an importer knows.
        colour: pictures in full size and colour, (height, width, 3) BGR, as encoders take them; otherwise those of a
            drive may be smaller, and grey.

    Raises:
        SourceError: no importer knows the file.
        OSError: it can't be read.

    Attributes:
        is_drive: its streams come as they arrived.
        span_ns: about from when to when it goes, if that is known beforehand.
        left_out: what was damaged, a line each, the first few of them; grows while samples are read.
        left_out_count: how many there were.
    """

    def __init__(self, path: Path, *, colour: bool = False) -> None:
        self.path = path
        self.left_out: list[str] = []
        self.left_out_count = 0
        self.span_ns: tuple[int, int] | None = None
        self._colour = colour
        self.is_drive = _is_drive(path)
        self._format = "" if self.is_drive else detect.detect(path)
        if self.is_drive:
            with DriveReader(path, on_damage=self._damaged) as drive:
                self.span_ns = drive.span_ns()

    def samples(self, wanted: Callable[[int], bool] | None = None) -> Iterator[Frame | AudioChunk | ImuSample]:
        """Each stream by its own instants; those of a drive also as they arrived, those of other formats one by one.

        Args:
            wanted: whether the picture of an instant is; the others are not decoded.
        """
        self.left_out.clear()
        self.left_out_count = 0
        for sample in self._of_drive() if self.is_drive else self._of_recording():
            if wanted is not None and isinstance(sample, Frame) and not wanted(sample.stamp_ns):
                continue
            if isinstance(sample, Frame) and sample.image is None:
                try:
                    sample = sample._replace(image=self._decoded(sample.jpeg))
                except DriveFormatError as error:
                    self._leave_out(str(error))
                    continue
            if isinstance(sample, (Frame, AudioChunk, ImuSample)):
                yield sample

    def _of_drive(self) -> Iterator[Any]:
        with DriveReader(self.path, on_damage=self._damaged) as drive:
            for message in drive.messages(topics=_WANTED):
                try:
                    yield codec.decode(message.topic, message.payload, message.sequence, pictures=False)
                except DriveFormatError as error:
                    self._leave_out(str(error))

    def _of_recording(self) -> Iterator[Any]:
        for stream in detect.opener(self._format)(self.path, Options(grey=not self._colour)).streams:
            for event in stream:
                if event.topic in _WANTED:
                    yield event.content

    def _decoded(self, jpeg: bytes) -> NDArray[np.uint8]:
        return codec.decode_jpeg(jpeg) if self._colour else codec.decode_grey(jpeg, SMALL_WIDTH_PX)

    def _damaged(self, damage: DriveDamaged) -> None:
        self._leave_out(f"{damage} (byte {damage.offset})")

    def _leave_out(self, what: str) -> None:
        self.left_out_count += 1
        if len(self.left_out) < _MOST_LINES:
            self.left_out.append(what)


def _is_drive(path: Path) -> bool:
    """Whether it has our streams; a MCAP of ROS messages is one for the importer."""
    if path.is_dir():
        return False
    try:
        with DriveReader(path, on_damage=lambda _: None) as drive:
            ours = {channel.topic for channel in drive.channels.values() if channel.schema in _SCHEMAS}
    except DriveFormatError:
        return False
    if not ours.isdisjoint(topics.SCHEMAS):
        missing = [topic for topic in _BOTH if topic not in ours]
        if missing:
            raise AlignmentError(f"{path}: expected {' and '.join(_BOTH)}, got no {' and no '.join(missing)}")
        return True
    return False
