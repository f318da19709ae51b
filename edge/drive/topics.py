"""The topics of a drive and the schema of each: the one place that names them.

Foxglove's schemas where one fits, so that Foxglove and Rerun open a drive as it is; `roadfuse.v1` for the rest.
"""

from __future__ import annotations

from typing import Final

from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from google.protobuf.message import Message

from roadfuse.v1.campaign_pb2 import ProbeSet
from roadfuse.v1.decision_pb2 import Decision
from roadfuse.v1.sensors_pb2 import CanFrame, Imu, VehicleState
from roadfuse.v1.truth_pb2 import GroundTruth
from roadfuse.v1.updates_pb2 import BundleInUse

CAMERA: Final = "/camera"
AUDIO: Final = "/audio"
IMU: Final = "/imu"
GNSS: Final = "/gnss"
CAN: Final = "/can"
VEHICLE: Final = "/vehicle"
LIDAR: Final = "/lidar"
CALIBRATION: Final = "/camera/calibration"
TRANSFORM: Final = "/tf"
TRUTH: Final = "/truth"
# What campaigns look for: an input of the loop that comes from the cloud.
CAMPAIGNS: Final = "/campaigns"
# Which bundle decides from here on: an input of the loop that comes from the update agent.
BUNDLE: Final = "/bundle"
DECISION: Final = "/decision"
DECISION_ANNOTATIONS: Final = "/decision/annotations"

SCHEMAS: Final[dict[str, type[Message]]] = {
    CAMERA: CompressedImage,
    AUDIO: RawAudio,
    IMU: Imu,
    GNSS: LocationFix,
    CAN: CanFrame,
    VEHICLE: VehicleState,
    LIDAR: PointCloud,
    CALIBRATION: CameraCalibration,
    TRANSFORM: FrameTransform,
    TRUTH: GroundTruth,
    CAMPAIGNS: ProbeSet,
    BUNDLE: BundleInUse,
    DECISION: Decision,
    DECISION_ANNOTATIONS: ImageAnnotations,
}
# Said when it changes, and only then: never dropped for what comes again anyway.
SAID_ONCE: Final = frozenset({CAMPAIGNS, BUNDLE})
