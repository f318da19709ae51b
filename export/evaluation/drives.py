"""Recorded drives with ground truth as a split: the same tensors and targets as of rendered worlds."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, DriveFormatError
from edge.preprocess import image_into
from edge.samples import Frame, Sample
from edge.streams import SECOND, STREAMS
from export.evaluation.runner import F32
from export.label import targets_of
from export.training.dataset import PICTURE, Split, assembled
from export.training.plan import FPS, WARM_UP_S
from export.training.render import Rendered, Streams
from roadfuse.v1.truth_pb2 import GroundTruth

WANTED = (topics.CAMERA, topics.AUDIO, topics.IMU, topics.GNSS, topics.VEHICLE, topics.LIDAR, topics.TRUTH)
STEP_NS = SECOND // FPS
REACH_NS = {stream.name: (stream.tolerance_ns, stream.ahead_ns) for stream in STREAMS}  # before and after a frame


def split_of_drives(paths: list[Path]) -> tuple[Split, F32]:
    """Frames of all drives at 4 fps, as many of each as the shortest has.

    Returns:
        the split, and (n, 4) by frame and modality 1 where the vehicle would have had it, 0 where not.

    Raises:
        ConfigError: a drive without ground truth, or too short.
        DriveError: a drive that can't be read, or ground truth that is damaged.
    """
    found = [_rendered(path) for path in paths]
    count = min(len(rendered.truths) for rendered, _, _ in found)
    jpeg = [frame for rendered, _, _ in found for frame in rendered.jpeg[:count]]
    arrays = {
        name: np.concatenate([getattr(rendered, name)[:count] for rendered, _, _ in found])
        for name in ("pcm", "motion", "lidar", "surface")
    }
    arrays |= {"jpeg": np.frombuffer(b"".join(jpeg), np.uint8), "jpeg_ends": np.cumsum([len(frame) for frame in jpeg])}
    truths = [GroundTruth.FromString(raw) for rendered, _, _ in found for raw in rendered.truths[:count]]
    sizes = {size for _, _, size in found}
    if len(sizes) > 1:
        raise ConfigError(f"--drives: expected pictures of one size, got {sorted(sizes)}")
    split = assembled(arrays, truths, count, sizes.pop(), "")
    presence = np.concatenate([there[:count] for _, there, _ in found])
    told = np.where(presence[:, 1:2] > 0, split.onsets, np.float32(-1.0))  # without sound nobody tells when it began
    return dataclasses.replace(split, onsets=told), presence


def _rendered(path: Path) -> tuple[Rendered, F32, tuple[int, int]]:
    """Tensors, presence, and the width and height of the pictures of one drive."""
    streams = Streams()
    with DriveReader(path) as drive:
        if topics.TRUTH not in drive.topics:
            raise ConfigError(f"{path}: expected a drive with ground truth ({topics.TRUTH}), got none")
        for message in drive.messages(WANTED):
            if message.topic == topics.TRUTH:
                streams.truths[message.capture_ns] = _truth(message.payload, path)
                continue
            with contextlib.suppress(DriveFormatError):  # the loop does without a sample that is corrupt, too
                streams.add(codec.decode(message.topic, message.payload, message.sequence, pictures=False))
    used, size_px = _at_four_a_second(streams)
    if not used:
        raise ConfigError(f"{path}: expected more than {WARM_UP_S} s of pictures with truth, got less")
    for frame in used:
        targets_of(streams.truths[frame.stamp_ns], size_px, path)  # says which drive has one that no head knows
    try:
        rendered = streams.rendered(used)
    except (zlib.error, ValueError) as error:
        raise DriveFormatError(f"{path}: expected a surface in each truth, got {error}") from None
    return rendered, _presence(streams, used), size_px


def _truth(payload: bytes, path: Path) -> GroundTruth:
    try:
        return GroundTruth.FromString(payload)
    except DecodeError as error:
        raise DriveFormatError(f"{path}: expected ground truth in {topics.TRUTH}, got {error}") from None


def _at_four_a_second(streams: Streams) -> tuple[list[Frame], tuple[int, int]]:
    """Frames with a truth and a picture that decodes, a quarter of a second apart, once the windows are full.

    They have JPEGs of the encoder's size and are not decoded: a drive's pictures are a gigabyte a minute. Beside them
    the width and height of the first picture.
    """
    used: list[Frame] = []
    size_px = (0, 0)
    known = [frame for frame in streams.frames if frame.stamp_ns in streams.truths]
    for frame in known:
        since_ns = used[-1].stamp_ns + STEP_NS if used else known[0].stamp_ns + WARM_UP_S * SECOND
        if frame.stamp_ns < since_ns:
            continue
        with contextlib.suppress(DriveFormatError):  # a picture less, as in the loop
            image = codec.decode_jpeg(frame.jpeg)
            size_px = size_px if used else (image.shape[1], image.shape[0])
            used.append(_sized(frame, image))
    return used, size_px


def _sized(frame: Frame, image: NDArray[np.uint8]) -> Frame:
    """With the JPEG of the picture in the encoder's size."""
    if image.shape[1::-1] == PICTURE:
        return frame
    small = np.empty((PICTURE[1], PICTURE[0], 3), np.uint8)
    image_into(small, image)
    return frame._replace(jpeg=codec.encode_jpeg(small))


def _presence(streams: Streams, used: Sequence[Frame]) -> F32:
    """(n, 4) by frame and modality 1 where the loop would have taken some of it, 0 where it was silent or stale."""

    def had(stream: str, samples: Sequence[Sample], stamp_ns: int) -> bool:
        before_ns, after_ns = REACH_NS[stream]
        newest = bisect_right(samples, stamp_ns + after_ns, key=lambda sample: sample.stamp_ns)
        return newest > 0 and samples[newest - 1].stamp_ns >= stamp_ns - before_ns

    rows = [
        (
            True,
            had("audio", streams.audio, frame.stamp_ns),
            had("imu", streams.imu, frame.stamp_ns) or had("vehicle", streams.vehicle, frame.stamp_ns),
            had("lidar", streams.lidar, frame.stamp_ns),
        )
        for frame in used
    ]
    return np.array(rows, np.float32)
