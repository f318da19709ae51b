"""Samples to protobuf messages and back: the one place where the loop's types meet the disk's.

Encoding gives the message of `topics.SCHEMAS`; decoding checks what the loop relies on and refuses the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import simplejpeg
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.Pose_pb2 import Pose
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from edge.drive import topics
from edge.errors import DriveFormatError
from edge.samples import AudioChunk, CanFrame, Frame, GnssFix, ImuSample, Sample, Sweep, VehicleState
from roadfuse.v1 import sensors_pb2

JPEG_QUALITY = 90
# A message beyond these is damaged or hostile, not a sensor's.
MAX_IMAGE_PX: Final = 64_000_000
MAX_JPEG_SIDE_PX: Final = 65_500  # no JPEG is wider or higher
MAX_JPEG_SCANS: Final = 64  # each costs a pass over the whole picture; progressive encoders write about ten
MAX_POINTS: Final = 2_000_000
MAX_AUDIO_CHANNELS: Final = 64
MAX_CAN_ID: Final = (1 << 29) - 1
MAX_CAN_BYTES: Final = 64
# No quantity of a vehicle is larger in SI units, and float32 has room for it.
MAX_MAGNITUDE: Final = 1e6
MAX_POINT_FIELDS: Final = 64
# Bytes of a message before it is parsed: a hostile one takes 25 times as much once parsed.
_MAX_MESSAGE_BYTES: Final = {topics.CAMERA: 64 << 20, topics.AUDIO: 16 << 20, topics.LIDAR: 33 << 20}
_MAX_SMALL_MESSAGE_BYTES: Final = 64 << 10


def timestamp(ns: int) -> Timestamp:
    """A protobuf timestamp of an instant in ns.

    Raises:
        ValueError: the instant lies outside 0..2^63-1 ns, where no reader would take it.
    """
    if not 0 <= ns < 1 << 63:
        raise ValueError(f"expected an instant of 0..2^63-1 ns, got {ns}")
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


def timestamp_ns(stamp: Timestamp) -> int:
    """The instant in ns of a protobuf timestamp.

    Raises:
        DriveFormatError: it lies outside 0..2^63-1 ns, or its nanoseconds make more than a second.
    """
    ns: int = stamp.seconds * 1_000_000_000 + stamp.nanos
    if not 0 <= stamp.nanos < 1_000_000_000 or not 0 <= ns < 1 << 63:
        raise DriveFormatError(f"expected a timestamp of 0..2^63-1 ns, got {stamp.seconds} s and {stamp.nanos} ns")
    return ns


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """A (height, width, 3) uint8 BGR picture as JPEG.

    Raises:
        DriveFormatError: it is wider or higher than a JPEG can be.
    """
    height, width = image.shape[:2]
    if max(height, width) > MAX_JPEG_SIDE_PX:
        raise DriveFormatError(f"camera picture: expected at most {MAX_JPEG_SIDE_PX} px a side, got {width}x{height}")
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="BGR", fastdct=False)
    return jpeg


def decode_jpeg(jpeg: bytes) -> NDArray[np.uint8]:
    """A JPEG as a (height, width, 3) uint8 BGR picture.

    Raises:
        DriveFormatError: the bytes are no JPEG, or claim an absurd size.
    """
    return _decoded(jpeg, colorspace="BGR")


def decode_grey(jpeg: bytes, width_px: int) -> NDArray[np.uint8]:
    """A JPEG as a small (height, width) uint8 grey picture, at least `width_px` wide where the JPEG is.

    It is scaled while it is decoded, which takes a third of the time.

    Raises:
        DriveFormatError: as of `decode_jpeg`.
    """
    return _decoded(jpeg, colorspace="GRAY", min_width=width_px)[:, :, 0]


def check_jpeg(jpeg: bytes) -> int:
    """The width (px) of a JPEG whose header is sound; nothing is decoded.

    Raises:
        DriveFormatError: as of `decode_jpeg`.
    """
    if (scans := jpeg.count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise DriveFormatError(f"camera picture: expected at most {MAX_JPEG_SCANS} scans, got {scans}")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise _no_jpeg(jpeg, error) from None
    if height * width > MAX_IMAGE_PX:
        raise DriveFormatError(f"camera picture: expected at most {MAX_IMAGE_PX} pixels, got {width}x{height}")
    return int(width)


def _decoded(jpeg: bytes, colorspace: str, min_width: int = 0) -> NDArray[np.uint8]:
    width = check_jpeg(jpeg)
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            jpeg, colorspace=colorspace, fastdct=False, min_width=min(min_width, width)
        )
    except ValueError as error:
        raise _no_jpeg(jpeg, error) from None
    return image


def _no_jpeg(jpeg: bytes, error: ValueError) -> DriveFormatError:
    return DriveFormatError(f"camera picture: expected a JPEG, got {len(jpeg)} bytes ({error})")


def encode(sample: Sample) -> Message:
    """The protobuf message of a sample; `topics.SCHEMAS` says which."""
    return _ENCODERS[type(sample)](sample)


def decode(topic: str, payload: bytes, seq: int, *, pictures: bool = True) -> Sample:
    """The sample in a message of one of the sensor topics.

    Args:
        pictures: decode camera pictures; False leaves `Frame.image` None.

    Raises:
        DriveFormatError: the payload is not what the topic's schema says, or a value in it can't be.
    """
    if topic not in _DECODERS:
        raise DriveFormatError(f"{topic}: expected one of the sensor topics {', '.join(_DECODERS)}")
    limit = _MAX_MESSAGE_BYTES.get(topic, _MAX_SMALL_MESSAGE_BYTES)
    if len(payload) > limit:
        raise DriveFormatError(f"{topic}: expected at most {limit} bytes, got {len(payload)}")
    message: Any = topics.SCHEMAS[topic]()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise DriveFormatError(f"{topic}: expected a {message.DESCRIPTOR.full_name} message, got {error}") from None
    if not message.HasField("timestamp"):
        raise DriveFormatError(f"{topic}: expected a timestamp, got none")
    stamp_ns = timestamp_ns(message.timestamp)
    if topic == topics.CAMERA:
        return _decode_frame(message, stamp_ns, seq, pictures=pictures)
    return _DECODERS[topic](message, stamp_ns, seq)


def _encode_frame(frame: Frame) -> Message:
    jpeg = frame.jpeg
    if not jpeg:
        if frame.image is None:
            raise ValueError("a frame needs an image or a JPEG")
        jpeg = encode_jpeg(frame.image)
    return CompressedImage(timestamp=timestamp(frame.stamp_ns), frame_id="camera", data=jpeg, format="jpeg")


def _decode_frame(message: Any, stamp_ns: int, seq: int, *, pictures: bool = True) -> Frame:
    if message.format not in ("jpeg", "jpg"):
        raise DriveFormatError(f"{topics.CAMERA}: expected format jpeg, got {message.format!r}")
    image = decode_jpeg(message.data) if pictures else None
    return Frame(stamp_ns, seq, image, message.data)


def _encode_audio(chunk: AudioChunk) -> Message:
    return RawAudio(
        timestamp=timestamp(chunk.stamp_ns),
        data=np.ascontiguousarray(chunk.pcm, dtype="<i2").tobytes(),
        format="pcm-s16",
        sample_rate=chunk.rate_hz,
        number_of_channels=1,
    )


def _decode_audio(message: Any, stamp_ns: int, seq: int) -> AudioChunk:
    if message.format != "pcm-s16":
        raise DriveFormatError(f"{topics.AUDIO}: expected format pcm-s16, got {message.format!r}")
    channels = message.number_of_channels
    if not 1 <= channels <= MAX_AUDIO_CHANNELS or len(message.data) % (2 * channels):
        raise DriveFormatError(
            f"{topics.AUDIO}: expected whole samples of 1..{MAX_AUDIO_CHANNELS} channels, "
            f"got {len(message.data)} bytes of {channels} channels"
        )
    if not 1_000 <= message.sample_rate <= 384_000:
        raise DriveFormatError(f"{topics.AUDIO}: expected a rate of 1..384 kHz, got {message.sample_rate} Hz")
    pcm = np.frombuffer(message.data, dtype="<i2")
    if channels > 1:  # mean of the channels, rounded down, in integers so that every machine agrees
        pcm = (pcm.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels).astype(np.int16)
    return AudioChunk(stamp_ns, seq, message.sample_rate, pcm)


def _encode_imu(sample: ImuSample) -> Message:
    ax, ay, az = sample.accel_mps2
    gx, gy, gz = sample.gyro_radps
    return sensors_pb2.Imu(
        timestamp=timestamp(sample.stamp_ns),
        frame_id="imu",
        linear_acceleration_mps2=sensors_pb2.Vector3(x=ax, y=ay, z=az),
        angular_velocity_radps=sensors_pb2.Vector3(x=gx, y=gy, z=gz),
    )


def _decode_imu(message: Any, stamp_ns: int, seq: int) -> ImuSample:
    accel, gyro = message.linear_acceleration_mps2, message.angular_velocity_radps
    sample = ImuSample(stamp_ns, seq, (accel.x, accel.y, accel.z), (gyro.x, gyro.y, gyro.z))
    _require_sane(topics.IMU, *sample.accel_mps2, *sample.gyro_radps)
    return sample


def _encode_gnss(fix: GnssFix) -> Message:
    message = LocationFix(
        timestamp=timestamp(fix.stamp_ns),
        frame_id="gnss",
        latitude=fix.latitude_deg,
        longitude=fix.longitude_deg,
        altitude=fix.altitude_m,
    )
    if fix.velocity_enu_mps is not None:
        east, north, up = fix.velocity_enu_mps
        message.velocity.CopyFrom(Vector3(x=east, y=north, z=up))
        if math.hypot(east, north) > 0.5:  # below, the course is noise
            message.heading = math.atan2(east, north) % (2 * math.pi)
    return message


def _decode_gnss(message: Any, stamp_ns: int, seq: int) -> GnssFix:
    velocity = None
    if message.HasField("velocity"):
        velocity = (message.velocity.x, message.velocity.y, message.velocity.z)
        _require_sane(topics.GNSS, *velocity)
    latitude_deg, longitude_deg, altitude_m = message.latitude, message.longitude, message.altitude
    _require_sane(topics.GNSS, altitude_m)
    if not (abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180):
        raise DriveFormatError(f"{topics.GNSS}: expected a place on Earth, got {latitude_deg}, {longitude_deg} degrees")
    return GnssFix(stamp_ns, seq, latitude_deg, longitude_deg, altitude_m, velocity)


def _encode_can(frame: CanFrame) -> Message:
    return sensors_pb2.CanFrame(
        timestamp=timestamp(frame.stamp_ns),
        bus=frame.bus,
        id=frame.id,
        is_extended=frame.is_extended,
        payload=frame.payload,
    )


def _decode_can(message: Any, stamp_ns: int, seq: int) -> CanFrame:
    if message.bus > 255 or message.id > MAX_CAN_ID or len(message.payload) > MAX_CAN_BYTES:
        raise DriveFormatError(
            f"{topics.CAN}: expected bus 0..255, an id of 29 bits and at most {MAX_CAN_BYTES} bytes, "
            f"got bus {message.bus}, id {message.id:#x}, {len(message.payload)} bytes"
        )
    return CanFrame(stamp_ns, seq, message.bus, message.id, message.payload, message.is_extended)


_OPTIONAL_VEHICLE_FIELDS = (
    "steering_wheel_angle_rad",
    "yaw_rate_radps",
    "acceleration_mps2",
    "accelerator",
    "brake",
    "driver_in_control",
)


def _encode_vehicle(state: VehicleState) -> Message:
    message = sensors_pb2.VehicleState(timestamp=timestamp(state.stamp_ns), speed_mps=state.speed_mps)
    for name in _OPTIONAL_VEHICLE_FIELDS:
        value = getattr(state, name)
        if value is not None:
            setattr(message, name, value)
    if state.wheel_speeds_mps is not None:
        front_left, front_right, rear_left, rear_right = state.wheel_speeds_mps
        message.wheel_speeds.CopyFrom(
            sensors_pb2.WheelSpeeds(
                front_left_mps=front_left,
                front_right_mps=front_right,
                rear_left_mps=rear_left,
                rear_right_mps=rear_right,
            )
        )
    return message


def _decode_vehicle(message: Any, stamp_ns: int, seq: int) -> VehicleState:
    has = message.HasField
    optional: dict[str, Any] = {name: getattr(message, name) for name in _OPTIONAL_VEHICLE_FIELDS if has(name)}
    _require_sane(topics.VEHICLE, message.speed_mps, *optional.values())
    if has("wheel_speeds"):
        wheels = message.wheel_speeds
        speeds = (wheels.front_left_mps, wheels.front_right_mps, wheels.rear_left_mps, wheels.rear_right_mps)
        _require_sane(topics.VEHICLE, *speeds)
        optional["wheel_speeds_mps"] = speeds
    return VehicleState(stamp_ns, seq, message.speed_mps, **optional)


_POINT_FIELDS = ("x", "y", "z", "intensity")


def _encode_sweep(sweep: Sweep) -> Message:
    return PointCloud(
        timestamp=timestamp(sweep.stamp_ns),
        frame_id="lidar",
        pose=Pose(orientation=Quaternion(w=1.0)),
        point_stride=16,
        fields=[
            PackedElementField(name=name, offset=4 * i, type=PackedElementField.FLOAT32)
            for i, name in enumerate(_POINT_FIELDS)
        ],
        data=np.ascontiguousarray(sweep.points_lidar, dtype="<f4").tobytes(),
    )


def _decode_sweep(message: Any, stamp_ns: int, seq: int) -> Sweep:
    stride = message.point_stride
    if len(message.fields) > MAX_POINT_FIELDS:
        raise DriveFormatError(f"{topics.LIDAR}: expected at most {MAX_POINT_FIELDS} fields, got {len(message.fields)}")
    offsets = {field.name: field.offset for field in message.fields if field.type == PackedElementField.FLOAT32}
    fit = all(offset + 4 <= stride for offset in offsets.values())
    if not offsets.keys() >= {"x", "y", "z"} or not fit or len(message.data) % stride:
        raise DriveFormatError(
            f"{topics.LIDAR}: expected float32 x, y, z in a whole number of points, "
            f"got stride {stride}, fields {sorted(offsets)[:8]}, {len(message.data)} bytes"
        )
    count = len(message.data) // stride
    if count > MAX_POINTS:
        raise DriveFormatError(f"{topics.LIDAR}: expected at most {MAX_POINTS} points, got {count}")
    if stride == 16 and [offsets.get(name) for name in _POINT_FIELDS] == [0, 4, 8, 12]:
        points = np.frombuffer(message.data, dtype="<f4").reshape(count, 4)
    else:
        raw = np.frombuffer(message.data, dtype=np.uint8).reshape(count, stride)
        points = np.zeros((count, 4), dtype=np.float32)
        for column, name in enumerate(_POINT_FIELDS):
            if name in offsets:
                at = offsets[name]
                points[:, column] = raw[:, at : at + 4].copy().view("<f4")[:, 0]
    if count and not np.abs(points).max() <= MAX_MAGNITUDE:  # NaN is not <= either
        raise DriveFormatError(f"{topics.LIDAR}: expected finite points within {MAX_MAGNITUDE:g} m, got others")
    return Sweep(stamp_ns, seq, points)


def _require_sane(topic: str, *values: float) -> None:
    for value in values:
        if not abs(value) <= MAX_MAGNITUDE:  # NaN is not <= either
            raise DriveFormatError(f"{topic}: expected values within +-{MAX_MAGNITUDE:g}, got {value}")


_ENCODERS: dict[type, Callable[[Any], Message]] = {
    Frame: _encode_frame,
    AudioChunk: _encode_audio,
    ImuSample: _encode_imu,
    GnssFix: _encode_gnss,
    CanFrame: _encode_can,
    VehicleState: _encode_vehicle,
    Sweep: _encode_sweep,
}
_DECODERS: dict[str, Callable[[Any, int, int], Sample]] = {
    topics.CAMERA: _decode_frame,
    topics.AUDIO: _decode_audio,
    topics.IMU: _decode_imu,
    topics.GNSS: _decode_gnss,
    topics.CAN: _decode_can,
    topics.VEHICLE: _decode_vehicle,
    topics.LIDAR: _decode_sweep,
}
