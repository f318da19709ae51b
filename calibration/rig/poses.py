"""Poses: what a drive says of its camera and LiDAR, and small rotations. `dst_SE3_src` maps points of src into dst."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.alignment.projection import pose_between
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, DriveFormatError

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """matrix: (3, 3) K, px; distortion: plumb-bob, () where none; camera_SE3_lidar: (4, 4), m."""

    matrix: F64
    distortion: F64
    camera_SE3_lidar: F64


def read_geometry(drive: DriveReader) -> Geometry:
    """The drive's own calibration and poses.

    Raises:
        DriveFormatError: it has none, or they can't be used.
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
    if calibration is None or len(calibration.K) != 9:
        raise DriveFormatError(f"{drive.path}: expected intrinsics in {topics.CALIBRATION}, got none")
    matrix = np.array(calibration.K, np.float64).reshape(3, 3)
    distortion = np.array(calibration.D, np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all() and min(matrix[0, 0], matrix[1, 1]) > 0):
        raise DriveFormatError(f"{drive.path}: expected finite intrinsics with focal lengths above 0, got others")
    try:
        pose = pose_between(transforms, "camera", "lidar")
    except DriveFormatError:
        raise DriveFormatError(
            f"{drive.path}: expected poses of camera and lidar in {topics.TRANSFORM}, got none that connect them"
        ) from None
    return Geometry(matrix, distortion if distortion.any() else np.zeros(0), pose)


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
