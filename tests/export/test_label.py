"""`roadfuse label`: the world's truth as labels that fit the drive's frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration

from calibration.labels import file_sha256, read_labels
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import DriveFormatError
from export.label import main
from export.world.command import main as simulate
from roadfuse.v1.truth_pb2 import GroundTruth


def test_every_frame_of_a_simulated_drive_gets_its_labels(tmp_path: Path) -> None:
    drive = tmp_path / "drive.mcap"
    simulate(
        [
            "--seed",
            "4",
            "--seconds",
            "2",
            "--no-lidar",
            "--light",
            "night",
            "--weather",
            "rain",
            "--out",
            str(drive),
            "--json",
        ]
    )
    assert main([str(drive)]) == 0
    labels = read_labels(tmp_path / "drive.labels.json")
    assert labels.drive_sha256 == file_sha256(drive)
    with DriveReader(drive) as read:
        stamps = {message.capture_ns for message in read.messages(topics=[topics.CAMERA])}
    assert labels.frames.keys() == stamps
    assert all({"night", "rain"} <= set(frame["scene_tags"]) for frame in labels.frames.values())


def test_a_drive_without_truth_is_refused(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "drive.mcap"):
        pass
    with pytest.raises(DriveFormatError, match="expected the size of its pictures"):
        main([str(tmp_path / "drive.mcap")])


@pytest.mark.parametrize("action", ["", "flies"])
def test_truth_of_an_action_that_no_head_knows_is_refused(tmp_path: Path, action: str) -> None:
    truth = GroundTruth(place="urban", light="day", weather="clear", ego_action=action)
    with DriveWriter(tmp_path / "drive.mcap") as drive:
        for sequence, (topic, message) in enumerate(
            ((topics.CALIBRATION, CameraCalibration(width=640, height=384)), (topics.TRUTH, truth))
        ):
            drive.write_message(topic, message, capture_ns=1, arrival_ns=1, sequence=sequence)
    with pytest.raises(DriveFormatError, match=rf"drive.mcap: expected truth in the heads' terms, .*'{action}'"):
        main([str(tmp_path / "drive.mcap")])
