"""Poses: what a drive says of its camera and LiDAR, and small rotations. `dst_SE3_src` maps points of src into dst."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.alignment.projection import Rig
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import AlignmentError, ConfigError, DriveFormatError

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """matrix: (3, 3) K, px; size_px: width and height of the pictures; distortion: plumb-bob, () where none;
    frame_id: the camera's in /tf; camera_SE3_lidar: (4, 4), m."""

    matrix: F64
    size_px: tuple[int, int]
    distortion: F64
    frame_id: str
    camera_SE3_lidar: F64


def read_geometry(drive: DriveReader) -> Geometry:
    """The drive's own calibration and poses.

    Raises:
        DriveFormatError: it has none, or such as make no rig.
    """
    calibration: CameraCalibration | None = None
    transforms: list[FrameTransform] = []
    for message in drive.messages(topics=[topics.CALIBRATION, topics.TRANSFORM]):
        try:
            if message.topic == topics.CALIBRATION:
                calibration = calibration or CameraCalibration.FromString(message.payload)
            else:
                transforms.append(FrameTransform.FromString(message.payload))
        except DecodeError as error:
            raise DriveFormatError(f"{drive.path}: {message.topic}: {error}") from None
    if calibration is None:
        raise DriveFormatError(f"{drive.path}: expected intrinsics in {topics.CALIBRATION}, got none")
    try:
        rig = Rig.from_messages(calibration, transforms)
    except (DriveFormatError, AlignmentError) as error:
        raise DriveFormatError(f"{drive.path}: {error}") from None
    matrix = np.array([[rig.fx_px, 0.0, rig.cx_px], [0.0, rig.fy_px, rig.cy_px], [0.0, 0.0, 1.0]])
    size_px, distortion = (rig.width_px, rig.height_px), np.array(rig.distortion, np.float64)
    return Geometry(matrix, size_px, distortion, calibration.frame_id or "camera", rig.cam_SE3_lidar)


def turned(rotation_rad: F64, translation_m: F64) -> F64:
    """(4, 4) of a rotation vector and a translation."""
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.asarray(rotation_rad, np.float64))[0]
    pose[:3, 3] = translation_m
    return pose


def difference(pose: F64, other: F64) -> tuple[F64, F64]:
    """(3,) rotation vector (deg) and (3,) shift (cm) that bring `other` to `pose`, both in the axes of dst."""
    step = pose @ np.linalg.inv(other)
    vector = cv2.Rodrigues(step[:3, :3])[0].reshape(3)
    return np.degrees(vector).astype(np.float64), 100.0 * (pose[:3, 3] - other[:3, 3])


def quaternion_of(rotation: F64) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation matrix, w >= 0."""
    vector = cv2.Rodrigues(rotation)[0].reshape(3)
    angle = float(np.linalg.norm(vector))
    x, y, z = (vector * (np.sin(0.5 * angle) / angle if angle > 1e-12 else 0.5)).tolist()
    return x, y, z, float(np.cos(0.5 * angle))


def parse_guess(text: str) -> F64:
    """Six numbers, x,y,z (m) and a rotation vector (deg), as a pose.

    Raises:
        ConfigError: others.
    """
    try:
        numbers = np.array([float(number) for number in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (6,) or not np.isfinite(numbers).all():
        raise ConfigError(f"--guess: expected x,y,z (m) and a rotation vector (deg), six numbers, got {text!r}")
    return turned(np.radians(numbers[3:]), numbers[:3])
