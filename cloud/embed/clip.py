"""What a clip gives to the encoders at one instant: the instant of its hardest decision, else its end."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cloud.embed.refusals import malformed, unsupported
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged, DriveError, DriveFormatError
from edge.preprocess import lidar_into, motion_into
from edge.streams import MS, SECOND, STREAMS
from roadfuse.v1 import decision_pb2

MCAP: Final = b"\x89MCAP0\r\n"
STEP_NS: Final = 250 * MS  # between the moments of a clip, as the clip encoder was trained
_STAMP: Final = attrgetter("stamp_ns")
_TOLERANCE_NS: Final = {stream.topic: stream.tolerance_ns for stream in STREAMS}
_MAX_HELD_BYTES: Final = 1 << 30
_MAX_FRAMES: Final = 10_000  # of a video file that are decoded to reach its end
_MAX_AHEAD_NS: Final = 20 * MS


class Clip:
    """A drive clip's samples near one instant.

    Attributes:
        instant_ns: vehicle monotonic clock.
    """

    def __init__(self, drive: DriveReader, wanted: Sequence[str]) -> None:
        self._drive = drive
        self._messages: dict[str, list[Any]] = {topic: [] for topic in wanted}
        hardest = (-1.0, 0)
        held_bytes = 0
        try:
            for message in drive.messages(topics=[*wanted, topics.DECISION]):
                if message.topic == topics.DECISION:
                    hardest = max(hardest, _hardness(message.payload))
                else:
                    self._messages[message.topic].append(message)
                    held_bytes += len(message.payload)
                    if held_bytes > _MAX_HELD_BYTES:
                        raise malformed(f"clip: expected at most {_MAX_HELD_BYTES >> 20} MiB unpacked, got more")
        except DriveDamaged:
            pass  # what came before the damage stands
        last = max((found[-1].capture_ns for found in self._messages.values() if found), default=0)
        self.instant_ns = hardest[1] if hardest[0] >= 0 else last
        for found in self._messages.values():
            found.sort(key=lambda message: message.capture_ns)

    def pictures(self, count: int) -> list[NDArray[np.uint8] | None]:
        """The camera's pictures STEP_NS apart up to the instant, oldest first; None where there was none."""
        messages = self._messages[topics.CAMERA]
        stamps = [message.capture_ns for message in messages]
        found: list[NDArray[np.uint8] | None] = []
        for back in range(count - 1, -1, -1):
            at_ns = self.instant_ns - back * STEP_NS
            i = bisect_right(stamps, at_ns) - 1
            found.append(_picture(messages[i]) if i >= 0 and at_ns - stamps[i] < STEP_NS else None)
        if not any(picture is not None for picture in found):
            raise malformed("clip: expected camera pictures, got none")
        return found

    def motion_into(self, out: NDArray[np.float32], window_ns: int) -> None:
        """The vehicle's motion up to the instant."""
        at = self.instant_ns
        imu = self._samples(topics.IMU, at - window_ns + 1, at)
        states = self._samples(topics.VEHICLE, at - _TOLERANCE_NS[topics.VEHICLE], at + _MAX_AHEAD_NS)
        split = bisect_right(states, at, key=_STAMP)
        fixes = self._samples(topics.GNSS, at - _TOLERANCE_NS[topics.GNSS], at)
        if not imu and not states:
            raise malformed("clip: expected motion of the vehicle, got none")
        motion_into(out, at, window_ns, imu, states[max(split - 1, 0) : split + 1], fixes[-1:])

    def lidar_into(self, out: NDArray[np.float32], azimuth_deg: float, highest_deg: float, lowest_deg: float) -> None:
        """The sweep nearest to the instant."""
        at = self.instant_ns
        sweeps = self._samples(topics.LIDAR, at - _TOLERANCE_NS[topics.LIDAR], at + _MAX_AHEAD_NS)
        if not sweeps:
            raise malformed("clip: expected a LiDAR sweep, got none")
        sweep = min(sweeps, key=lambda sample: abs(sample.stamp_ns - at))
        lidar_into(out, sweep.points_lidar, azimuth_deg, highest_deg, lowest_deg)

    def _samples(self, topic: str, first_ns: int, last_ns: int) -> list[Any]:
        messages = self._messages[topic]
        start = bisect_left(messages, first_ns, key=lambda message: message.capture_ns)
        found = []
        for message in messages[start:]:
            if message.capture_ns > last_ns:
                break
            try:
                found.append(codec.decode(topic, message.payload, message.sequence))
            except DriveFormatError:
                continue  # what can't be read is absent
        found.sort(key=_STAMP)
        return found


@contextmanager
def open_clip(content: bytes, *wanted: str) -> Iterator[Clip]:
    """A clip in memory.

    Args:
        wanted: topics that will be asked for.

    Raises:
        Refused: it is no drive.
    """
    if not content.startswith(MCAP):
        raise malformed(f"clip: expected MCAP, got {len(content)} bytes that begin with {content[:4]!r}")
    file = os.memfd_create("roadfuse-clip", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as into:
            into.write(content)
        try:
            with DriveReader(Path(f"/proc/self/fd/{file}"), lambda _: None) as drive:
                yield Clip(drive, wanted)
        except DriveError as error:
            raise malformed(f"clip: expected a drive, got: {str(error).rpartition(': ')[2]}") from None
    finally:
        os.close(file)


def video_pictures(content: bytes, count: int) -> list[NDArray[np.uint8] | None]:
    """The last pictures of a video file, STEP_NS apart, oldest first; None where it is shorter.

    Raises:
        Refused: it is no video, or PyAV is not installed here.
    """
    try:
        import av
    except ImportError:
        raise unsupported("video: expected a drive clip, got another file, for which PyAV is not installed") from None
    from io import BytesIO

    from edge.drive.codec import MAX_IMAGE_PX

    kept: list[tuple[float, NDArray[np.uint8]]] = []
    step_s, span_s = STEP_NS / SECOND, count * STEP_NS / SECOND
    try:
        with av.open(BytesIO(content), "r") as container:
            if not container.streams.video:
                raise malformed("video: expected pictures, got a file without")
            stream = container.streams.video[0]
            if stream.codec_context.width * stream.codec_context.height > MAX_IMAGE_PX:
                raise malformed(f"video: expected at most {MAX_IMAGE_PX} pixels a picture, got more")
            if stream.duration and stream.time_base and stream.duration * stream.time_base > 2 * span_s:
                container.seek(int(stream.duration - 2 * span_s / stream.time_base), stream=stream)
            for number, frame in enumerate(container.decode(stream)):
                if number >= _MAX_FRAMES:
                    raise malformed(f"video: expected at most {_MAX_FRAMES} pictures, got more")
                if frame.width * frame.height > MAX_IMAGE_PX:
                    raise malformed(f"video: expected at most {MAX_IMAGE_PX} pixels a picture, got more")
                at_s = float(frame.time or 0.0)
                # One a step is enough, and little of a long file is held.
                if kept and at_s - kept[-1][0] < step_s / 8:
                    continue
                kept.append((at_s, _small(frame)))
                while kept[-1][0] - kept[0][0] > span_s:
                    kept.pop(0)
    except av.FFmpegError as error:
        raise malformed(f"video: expected a video file, got: {str(error)[:200]}") from None
    if not kept:
        raise malformed("video: expected pictures, got none")
    times = [at_s for at_s, _ in kept]
    found: list[NDArray[np.uint8] | None] = []
    for back in range(count - 1, -1, -1):
        at_s = times[-1] - back * step_s
        i = bisect_right(times, at_s + 1e-6) - 1
        found.append(kept[i][1] if i >= 0 else None)
    return found


def _small(frame: Any) -> NDArray[np.uint8]:
    """BGR, no larger than full HD: the encoder takes less, and several are held at once."""
    ratio = max(frame.width / 1920, frame.height / 1152, 1.0)
    width, height = max(int(frame.width / ratio), 1), max(int(frame.height / ratio), 1)
    image: NDArray[np.uint8] = frame.to_ndarray(format="bgr24", width=width, height=height)
    return image


def _hardness(payload: bytes) -> tuple[float, int]:
    try:
        decision = decision_pb2.Decision.FromString(payload)
        return float(decision.hardness), codec.timestamp_ns(decision.timestamp)
    except (DecodeError, DriveFormatError):
        return -1.0, 0


def _picture(message: Any) -> NDArray[np.uint8] | None:
    try:
        frame: Any = codec.decode(topics.CAMERA, message.payload, message.sequence)
    except DriveFormatError:
        return None
    image: NDArray[np.uint8] = frame.image
    return image
