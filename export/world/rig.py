"""Where the sensors sit, as the messages that every drive begins with."""

from __future__ import annotations

from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from google.protobuf.message import Message

from edge.drive import topics
from edge.drive.codec import timestamp
from export.world.camera.lens import Lens
from export.world.lidar import FORWARD_M, UP_M


def messages(lens: Lens, stamp_ns: int, first_centre_px: float = 0.0) -> list[tuple[str, Message]]:
    """Calibration of the camera, then the poses of camera and LiDAR in the ego frame.

    Args:
        first_centre_px: where the lens sees the middle of the first pixel. It is 0.5, what readers of calibrations
            expect at 0; the default is half a pixel off, for drives that were always written so.
    """
    focal = lens.focal_px
    cx, cy = 0.5 * lens.width_px - first_centre_px, 0.5 * lens.height_px - first_centre_px
    calibration = CameraCalibration(
        timestamp=timestamp(stamp_ns),
        frame_id="camera",
        width=lens.width_px,
        height=lens.height_px,
        distortion_model="plumb_bob",
        D=[0.0] * 5,
        K=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        R=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        P=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    x, y, z, w = lens.rotation_ego_SE3_cam()
    camera = FrameTransform(
        timestamp=timestamp(stamp_ns), parent_frame_id="ego", child_frame_id="camera",
        translation=Vector3(x=lens.forward_m, y=0.0, z=lens.up_m), rotation=Quaternion(x=x, y=y, z=z, w=w),
    )  # fmt: skip
    lidar = FrameTransform(
        timestamp=timestamp(stamp_ns), parent_frame_id="ego", child_frame_id="lidar",
        translation=Vector3(x=FORWARD_M, y=0.0, z=UP_M), rotation=Quaternion(x=0.0, y=0.0, z=0.0, w=1.0),
    )  # fmt: skip
    return [(topics.CALIBRATION, calibration), (topics.TRANSFORM, camera), (topics.TRANSFORM, lidar)]
