"""What the sensors recorded, as Rerun sees it: pictures, points, motion, ground truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import rerun as rr
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.annotations import COLORS, OTHER
from edge.drive import topics
from edge.drive.codec import decode
from edge.drive.reader import DriveMessage
from edge.errors import DriveFormatError
from edge.samples import Frame, GnssFix, ImuSample, Sweep
from roadfuse.v1 import truth_pb2

TIMELINE: Final = "drive"
CAMERA: Final = "/ego/camera"
SAID_BOXES: Final = f"{CAMERA}/said"
TRUE_BOXES: Final = f"{CAMERA}/true"
LIDAR: Final = "/ego/lidar"
MAP: Final = "/map/fix"
_MIN_VISIBILITY: Final = 0.35
# Heights over the ground between which points go from blue to yellow, m in the LiDAR frame.
_LOW_M, _HIGH_M = -2.0, 2.0
_BLUE, _YELLOW = (36, 84, 160), (250, 218, 94)


class SensorLog:
    """Writes sensor messages to a recording.

    Args:
        recording: Rerun's.
        first_ns: instant that the timeline begins with.

    Attributes:
        unreadable: messages that could not be decoded.
    """

    def __init__(self, recording: rr.RecordingStream, first_ns: int) -> None:
        self._recording = recording
        self._first_ns = first_ns
        self._imu_ns: list[int] = []
        self._imu: list[tuple[float, ...]] = []
        self.unreadable = 0
        self._writers: dict[str, Callable[[DriveMessage], None]] = {
            topics.CAMERA: self._sample,
            topics.LIDAR: self._sample,
            topics.IMU: self._sample,
            topics.GNSS: self._sample,
            topics.TRUTH: self._truth,
            topics.CALIBRATION: self._calibration,
            topics.TRANSFORM: self._transform,
        }

    @property
    def topics(self) -> list[str]:
        """What `add` takes."""
        return list(self._writers)

    def add(self, message: DriveMessage) -> None:
        """Take a message of one of `topics`."""
        try:
            self._writers[message.topic](message)
        except (DriveFormatError, DecodeError):
            self.unreadable += 1

    def finish(self) -> None:
        """Write what was gathered: the IMU's curves."""
        if not self._imu:
            return
        times = [self.time(np.array(self._imu_ns, np.int64))]
        columns = np.array(self._imu)
        for i, name in enumerate(("accel/x", "accel/y", "accel/z", "gyro/x", "gyro/y", "gyro/z")):
            self._recording.send_columns(f"/imu/{name}", times, rr.Scalars.columns(scalars=columns[:, i]))

    def time(self, stamps_ns: NDArray[np.int64]) -> rr.TimeColumn:
        """Instants as a column of the timeline."""
        return rr.TimeColumn(TIMELINE, duration=(stamps_ns - self._first_ns).astype("timedelta64[ns]"))

    def at(self, stamp_ns: int) -> None:
        """Set the instant of what is written next."""
        self._recording.set_time(TIMELINE, duration=np.timedelta64(stamp_ns - self._first_ns, "ns"))

    def _sample(self, message: DriveMessage) -> None:
        sample: Any = decode(message.topic, message.payload, message.sequence, pictures=False)
        self.at(sample.stamp_ns)
        if isinstance(sample, Frame):
            picture = rr.EncodedImage(contents=sample.jpeg, media_type="image/jpeg")
            self._recording.log(f"{CAMERA}/picture", picture)
        elif isinstance(sample, Sweep):
            points = sample.points_lidar[:, :3]
            self._recording.log(LIDAR, rr.Points3D(points, colors=_by_height(points[:, 2]), radii=0.04))
        elif isinstance(sample, ImuSample):
            self._imu_ns.append(sample.stamp_ns)
            self._imu.append((*sample.accel_mps2, *sample.gyro_radps))
        elif isinstance(sample, GnssFix):
            place = rr.GeoPoints(lat_lon=[[sample.latitude_deg, sample.longitude_deg]], radii=rr.Radius.ui_points(6.0))
            self._recording.log(MAP, place)

    def _truth(self, message: DriveMessage) -> None:
        truth = truth_pb2.GroundTruth.FromString(message.payload)
        self.at(message.capture_ns)
        seen = [thing for thing in truth.objects if thing.visibility >= _MIN_VISIBILITY]
        boxes = [(thing.left_px, thing.top_px, thing.width_px, thing.height_px) for thing in seen]
        labels = [f"{thing.variant or thing.kind} {thing.intent}".strip() for thing in seen]
        self._recording.log(TRUE_BOXES, boxes_2d(boxes, labels, [OTHER] * len(seen), show_labels=False))
        self._recording.log("/truth/caption", rr.TextDocument(truth.caption))

    def _calibration(self, message: DriveMessage) -> None:
        calibration = CameraCalibration.FromString(message.payload)
        if len(calibration.K) == 9 and calibration.width and calibration.height:
            pinhole = rr.Pinhole(
                image_from_camera=np.array(calibration.K).reshape(3, 3),
                resolution=(calibration.width, calibration.height),
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=3.0,
            )
            self._recording.log(CAMERA, pinhole, static=True)

    def _transform(self, message: DriveMessage) -> None:
        transform = FrameTransform.FromString(message.payload)
        path = {"camera": CAMERA, "lidar": LIDAR}.get(transform.child_frame_id)
        if path is None:
            return
        shift, turn = transform.translation, transform.rotation
        pose = rr.Transform3D(
            translation=(shift.x, shift.y, shift.z), quaternion=rr.Quaternion(xyzw=(turn.x, turn.y, turn.z, turn.w))
        )
        self._recording.log(path, pose, static=True)


def boxes_2d(
    boxes: list[tuple[float, float, float, float]],
    labels: list[str],
    colors: list[tuple[float, float, float]],
    *,
    show_labels: bool,
) -> rr.Boxes2D:
    """Boxes of left, top, width and height in pixels; an empty list takes the last ones away."""
    return rr.Boxes2D(
        array=np.array(boxes, np.float32).reshape(-1, 4),
        array_format=rr.Box2DFormat.XYWH,
        labels=labels,
        colors=[tuple(round(255 * part) for part in color) for color in colors],
        show_labels=show_labels,
        radii=rr.Radius.ui_points(1.6 if show_labels else 0.7),
    )


def color_of(name: str) -> tuple[float, float, float]:
    """Of an object, red, green, blue, 0..1."""
    return COLORS.get(name, OTHER)


def _by_height(heights_m: NDArray[np.float32]) -> NDArray[np.uint8]:
    share = np.clip((heights_m - _LOW_M) / (_HIGH_M - _LOW_M), 0.0, 1.0)[:, None]
    mixed = np.array(_BLUE, np.float32) * (1.0 - share) + np.array(_YELLOW, np.float32) * share
    colors: NDArray[np.uint8] = mixed.astype(np.uint8)
    return colors
