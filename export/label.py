"""`roadfuse label`: what is true of each frame of a simulated drive, in the terms of the heads, as a file beside it."""

from __future__ import annotations

import argparse
from pathlib import Path

from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from google.protobuf.message import DecodeError

from calibration.labels import SUFFIX, HeadLabels, Labels, file_sha256
from edge.drive import topics
from edge.drive.codec import timestamp_ns
from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError
from export.model.labels import EGO_ACTIONS, PRESSING_INTENTS, SCENE_TAGS, SOUND_EVENTS
from export.training.targets import Targets, targets
from roadfuse.v1.truth_pb2 import GroundTruth

HEADS = {
    "scene_tags": HeadLabels("multi", SCENE_TAGS),
    "sound_events": HeadLabels("multi", SOUND_EVENTS),
    "ego_action": HeadLabels("single", EGO_ACTIONS),
    "intent": HeadLabels("single", PRESSING_INTENTS),
}


def main(argv: list[str]) -> int:
    """Writes DRIVE.labels.json beside each drive.

    Raises:
        DriveFormatError: a drive without truth or without the size of its pictures.
    """
    parser = argparse.ArgumentParser(prog="roadfuse label", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("drives", type=Path, nargs="+", metavar="DRIVE", help="MCAP drives with truth")
    options = parser.parse_args(argv)
    for drive in options.drives:
        labels = labels_of(drive)
        out = drive.with_suffix(SUFFIX)
        out.write_text(labels.to_json())
        print(f"{out}: {len(labels.frames)} frames")
    return 0


def labels_of(path: Path) -> Labels:
    """The labels of every frame that the drive has truth of.

    Raises:
        DriveFormatError: no truth, no picture size, or a message that is damaged.
    """
    frames: dict[int, dict[str, tuple[str, ...]]] = {}
    with DriveReader(path) as drive:
        try:
            size_px = _picture_size(drive)
            for message in drive.messages(topics=[topics.TRUTH]):
                truth = GroundTruth.FromString(message.payload)
                learned = targets_of(truth, size_px, path)
                frames[timestamp_ns(truth.timestamp)] = {
                    "scene_tags": tuple(name for name, on in zip(SCENE_TAGS, learned.tags) if on),
                    "sound_events": tuple(name for name, on in zip(SOUND_EVENTS, learned.sounds) if on),
                    "ego_action": (EGO_ACTIONS[learned.single[0]],),
                    "intent": (PRESSING_INTENTS[learned.single[1]],),
                }
        except DecodeError as error:
            raise DriveFormatError(f"{path}: {error}") from None
    if not frames:
        raise DriveFormatError(f"{path}: expected truth in {topics.TRUTH}, got none")
    return Labels(file_sha256(path), HEADS, frames)


def targets_of(truth: GroundTruth, size_px: tuple[int, int], path: Path) -> Targets:
    """What the heads learn of a moment of a drive; `size_px`: width and height of its pictures.

    Raises:
        DriveFormatError: the truth says what no head knows.
    """
    try:
        return targets(truth, *size_px)
    except ValueError:
        told = (truth.place, truth.light, truth.weather, truth.ego_action)
        raise DriveFormatError(
            f"{path}: expected truth in the heads' terms, got one of other terms (place, light, weather and action: "
            f"{str(told)[:200]})"
        ) from None


def _picture_size(drive: DriveReader) -> tuple[int, int]:
    for message in drive.messages(topics=[topics.CALIBRATION]):
        calibration = CameraCalibration.FromString(message.payload)
        if calibration.width and calibration.height:
            return calibration.width, calibration.height
    raise DriveFormatError(f"{drive.path}: expected the size of its pictures in {topics.CALIBRATION}, got none")
