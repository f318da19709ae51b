"""One ROS message into one sample; a message that can't be one raises `Unusable` with the reason.

Ref: REP 103 (m, rad, x forward, y left, z up), REP 105, sensor_msgs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np

from edge.drive import codec, topics
from edge.samples import Frame, GnssFix, ImuSample, Sample, Sweep, VehicleState

# Message types by the topic that takes them.
TOPICS: Final = {
    "sensor_msgs/msg/Imu": topics.IMU,
    "sensor_msgs/msg/NavSatFix": topics.GNSS,
    "sensor_msgs/msg/Image": topics.CAMERA,
    "sensor_msgs/msg/CompressedImage": topics.CAMERA,
    "sensor_msgs/msg/PointCloud2": topics.LIDAR,
    "nav_msgs/msg/Odometry": topics.VEHICLE,
    "geometry_msgs/msg/TwistStamped": topics.VEHICLE,
    "audio_common_msgs/msg/AudioData": topics.AUDIO,
    "audio_common_msgs/msg/AudioDataStamped": topics.AUDIO,
}
_TO_BGR: Final = {
    "bgr8": (3, None), "8UC3": (3, None), "rgb8": (3, cv2.COLOR_RGB2BGR), "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR), "mono8": (1, cv2.COLOR_GRAY2BGR), "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR), "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR), "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
}  # fmt: skip
_POINT_TYPES: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
# What full reflectance is by the field's type; drivers that use floats count to 255.
_FULL_INTENSITY: Final = {"u1": 255.0, "u2": 65535.0, "f4": 255.0, "f8": 255.0}


class Unusable(Exception):
    """The message has no sample; the text says why, the same for all messages of a kind."""


def stamp_ns(message: Any) -> int:
    """The header's instant; 0 where the sender left it unset."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def sample(msgtype: str, message: Any, at_ns: int, seq: int) -> Sample:
    """The sample of a message that was captured at an instant.

    Raises:
        Unusable: the message says itself that it is no measurement, or is in a form that is not read here.
    """
    return _CONVERTERS[msgtype](message, at_ns, seq)


def _imu(message: Any, at_ns: int, seq: int) -> ImuSample:
    if message.linear_acceleration_covariance[0] == -1 or message.angular_velocity_covariance[0] == -1:
        raise Unusable("it says that it has no acceleration or no angular rate")
    a, g = message.linear_acceleration, message.angular_velocity
    _finite(a.x, a.y, a.z, g.x, g.y, g.z)
    return ImuSample(at_ns, seq, (a.x, a.y, a.z), (g.x, g.y, g.z))


def _fix(message: Any, at_ns: int, seq: int) -> GnssFix:
    if message.status.status < 0:
        raise Unusable("it says that it has no fix")
    _finite(message.latitude, message.longitude)
    altitude_m = message.altitude if math.isfinite(message.altitude) else 0.0
    return GnssFix(at_ns, seq, message.latitude, message.longitude, altitude_m)


def _odometry(message: Any, at_ns: int, seq: int) -> VehicleState:
    twist = message.twist.twist
    _finite(twist.linear.x, twist.angular.z)
    return VehicleState(at_ns, seq, twist.linear.x, yaw_rate_radps=twist.angular.z)


def _twist(message: Any, at_ns: int, seq: int) -> VehicleState:
    _finite(message.twist.linear.x, message.twist.angular.z)
    return VehicleState(at_ns, seq, message.twist.linear.x, yaw_rate_radps=message.twist.angular.z)


def _image(message: Any, at_ns: int, seq: int) -> Frame:
    if message.encoding not in _TO_BGR:
        raise Unusable(f"encoding {message.encoding!r:.40} is not read")
    channels, conversion = _TO_BGR[message.encoding]
    height, width, step = message.height, message.width, message.step
    content = np.asarray(message.data, np.uint8)
    if not height or not width or step < width * channels or len(content) < step * height:
        raise Unusable("its size and its bytes don't match")
    rows = content[: step * height].reshape(height, step)[:, : width * channels]
    picture = np.ascontiguousarray(rows.reshape(height, width, channels) if channels > 1 else rows)
    return Frame(at_ns, seq, picture if conversion is None else np.asarray(cv2.cvtColor(picture, conversion), np.uint8))


def _compressed_image(message: Any, at_ns: int, seq: int) -> Frame:
    content = bytes(message.data)
    if content.startswith(b"\xff\xd8"):  # JPEG goes in as it is
        return Frame(at_ns, seq, None, content)
    try:
        picture = cv2.imdecode(np.frombuffer(content or b"\0", np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # its header claims more pixels than OpenCV takes
        picture = None
    if picture is None:
        raise Unusable(f"format {message.format!r:.40} is not read")
    return Frame(at_ns, seq, np.asarray(picture, np.uint8))


def _points(message: Any, at_ns: int, seq: int) -> Sweep:
    """x, y, z in m; points without a return are left out: ROS marks them with NaN, some drivers with FLT_MAX."""
    order = ">" if message.is_bigendian else "<"
    types = {field.name: (field.offset, _POINT_TYPES.get(field.datatype, "")) for field in message.fields}
    step, count = message.point_step, message.width * message.height
    content = np.asarray(message.data, np.uint8)
    if any(name not in types for name in "xyz") or len(content) < count * step:
        raise Unusable("it has no x, y and z, or fewer bytes than points")
    raw = content[: count * step].reshape(count, step) if step else content.reshape(0, 1)
    points = np.zeros((len(raw), 4), np.float32)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        offset, kind = types.get(name, (0, ""))
        size = int(kind[1:] or 0)
        if kind and offset + size <= raw.shape[1]:
            values = raw[:, offset : offset + size].copy().view(order + kind)[:, 0].astype(np.float32)
            points[:, column] = np.clip(values / _FULL_INTENSITY.get(kind, 1.0), 0, 1) if column == 3 else values
        elif column < 3:
            raise Unusable("x, y or z is no number in its points")
    return Sweep(at_ns, seq, points[(np.abs(points) <= codec.MAX_MAGNITUDE).all(axis=1)])  # NaN is not <= either


def _finite(*values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise Unusable("a value is not finite")


_CONVERTERS: Final[dict[str, Callable[[Any, int, int], Sample]]] = {
    "sensor_msgs/msg/Imu": _imu,
    "sensor_msgs/msg/NavSatFix": _fix,
    "sensor_msgs/msg/Image": _image,
    "sensor_msgs/msg/CompressedImage": _compressed_image,
    "sensor_msgs/msg/PointCloud2": _points,
    "nav_msgs/msg/Odometry": _odometry,
    "geometry_msgs/msg/TwistStamped": _twist,
}
