"""Recorded drives with ground truth as a split: the same tensors and targets as of rendered worlds."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, DriveFormatError
from edge.preprocess import image_into
from edge.samples import Frame
from export.training.dataset import PICTURE, Split, assembled
from export.training.plan import FPS, WARM_UP_S
from export.training.render import Rendered, Streams
from roadfuse.v1.truth_pb2 import GroundTruth

WANTED = (topics.CAMERA, topics.AUDIO, topics.IMU, topics.GNSS, topics.VEHICLE, topics.LIDAR, topics.TRUTH)
STEP_NS = 1_000_000_000 // FPS


def split_of_drives(paths: list[Path]) -> Split:
    """Frames of all drives at 4 fps, as many of each as the shortest has.

    Raises:
        ConfigError: a drive without ground truth, or too short.
        DriveError: a drive that can't be read.
    """
    found = [_rendered(path) for path in paths]
    count = min(len(rendered.truths) for rendered, _ in found)
    jpeg = [frame for rendered, _ in found for frame in rendered.jpeg[:count]]
    arrays = {
        name: np.concatenate([getattr(rendered, name)[:count] for rendered, _ in found])
        for name in ("pcm", "motion", "lidar", "surface")
    }
    arrays |= {"jpeg": np.frombuffer(b"".join(jpeg), np.uint8), "jpeg_ends": np.cumsum([len(frame) for frame in jpeg])}
    truths = [GroundTruth.FromString(raw) for rendered, _ in found for raw in rendered.truths[:count]]
    sizes = {size for _, size in found}
    if len(sizes) > 1:
        raise ConfigError(f"--drives: expected pictures of one size, got {sorted(sizes)}")
    return assembled(arrays, truths, count, sizes.pop(), "")


def _rendered(path: Path) -> tuple[Rendered, tuple[int, int]]:
    streams = Streams()
    with DriveReader(path) as drive:
        if topics.TRUTH not in drive.topics:
            raise ConfigError(f"{path}: expected a drive with ground truth ({topics.TRUTH}), got none")
        for message in drive.messages(WANTED):
            if message.topic == topics.TRUTH:
                streams.truths[message.capture_ns] = GroundTruth.FromString(message.payload)
                continue
            with contextlib.suppress(DriveFormatError):  # the loop does without a sample that is corrupt, too
                streams.add(codec.decode(message.topic, message.payload, message.sequence))
    used = _at_four_a_second(streams)
    if not used:
        raise ConfigError(f"{path}: expected more than {WARM_UP_S} s of pictures with truth, got less")
    image = used[0].image
    assert image is not None  # codec.decode gives pictures
    return streams.rendered([_sized(frame) for frame in used]), (image.shape[1], image.shape[0])


def _at_four_a_second(streams: Streams) -> list[Frame]:
    """Frames that have a picture and a truth, at least a quarter of a second apart, after the windows have filled."""
    used: list[Frame] = []
    known = [f for f in streams.frames if f.image is not None and f.stamp_ns in streams.truths]
    for frame in known:
        late_enough = frame.stamp_ns - known[0].stamp_ns >= WARM_UP_S * 1_000_000_000
        if late_enough and (not used or frame.stamp_ns - used[-1].stamp_ns >= STEP_NS):
            used.append(frame)
    return used


def _sized(frame: Frame) -> Frame:
    """With the picture in the encoder's size."""
    assert frame.image is not None
    if frame.image.shape[1::-1] == PICTURE:
        return frame
    small = np.empty((PICTURE[1], PICTURE[0], 3), np.uint8)
    image_into(small, frame.image)
    return frame._replace(image=small, jpeg=codec.encode_jpeg(small))
