"""Poses: what a drive says of its camera and LiDAR, and small rotations. `dst_SE3_src` maps points of src into dst."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import ConfigError, DriveFormatError

F64 = NDArray[np.float64]
_MAX_STEPS: Final = 16  # between a sensor and the root


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
    poses: dict[str, tuple[str, F64]] = {}  # child -> parent, parent_SE3_child
    for message in drive.messages(topics=[topics.CALIBRATION, topics.TRANSFORM]):
        try:
            if message.topic == topics.CALIBRATION:
                calibration = calibration or CameraCalibration.FromString(message.payload)
            else:
                pose = FrameTransform.FromString(message.payload)
                poses.setdefault(pose.child_frame_id, (pose.parent_frame_id, _pose(pose)))
        except DecodeError as error:
            raise DriveFormatError(f"{drive.path}: {message.topic}: {error}") from None
    if calibration is None or len(calibration.K) != 9:
        raise DriveFormatError(f"{drive.path}: expected intrinsics in {topics.CALIBRATION}, got none")
    matrix = np.array(calibration.K, np.float64).reshape(3, 3)
    distortion = np.array(calibration.D, np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all() and min(matrix[0, 0], matrix[1, 1]) > 0):
        raise DriveFormatError(f"{drive.path}: expected finite intrinsics with focal lengths above 0, got others")
    return Geometry(matrix, distortion if distortion.any() else np.zeros(0), _between(drive.path, poses))


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


def _pose(message: FrameTransform) -> F64:
    q, t = message.rotation, message.translation
    quaternion = np.array([q.x, q.y, q.z, q.w], np.float64)
    x, y, z, w = (quaternion / max(float(np.linalg.norm(quaternion)), 1e-12)).tolist()
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = t.x, t.y, t.z
    return pose


def _between(path: Path, poses: dict[str, tuple[str, F64]]) -> F64:
    chains = []
    for frame in ("camera", "lidar"):
        at, root_SE3_frame = frame, np.eye(4)
        for _ in range(_MAX_STEPS):
            if at not in poses:
                break
            at, step = poses[at]
            root_SE3_frame = step @ root_SE3_frame
        chains.append((at, root_SE3_frame))
    (root, root_SE3_camera), (other, root_SE3_lidar) = chains
    if root != other or not np.isfinite(root_SE3_lidar).all() or abs(np.linalg.det(root_SE3_camera)) < 1e-6:
        raise DriveFormatError(
            f"{path}: expected poses of camera and lidar in {topics.TRANSFORM}, got none that connect them"
        )
    pose: F64 = np.linalg.inv(root_SE3_camera) @ root_SE3_lidar
    return pose


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
