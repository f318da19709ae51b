"""Samples to protobuf messages and back: the one place where the loop's types meet the disk's.

Encoding gives the message of `topics.SCHEMAS`; decoding checks what the loop relies on and refuses the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
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
# A picture or a sweep beyond these is a damaged or hostile message, not a sensor.
MAX_IMAGE_PX = 64_000_000
MAX_POINTS = 4_000_000


def timestamp(ns: int) -> Timestamp:
    """A protobuf timestamp of an instant in ns."""
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)


def timestamp_ns(stamp: Timestamp) -> int:
    """The instant in ns of a protobuf timestamp."""
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """A (height, width, 3) uint8 BGR picture as JPEG."""
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="BGR", fastdct=False)
    return jpeg


def decode_jpeg(jpeg: bytes) -> NDArray[np.uint8]:
    """A JPEG as a (height, width, 3) uint8 BGR picture.

    Raises:
        DriveFormatError: the bytes are no JPEG, or claim an absurd size.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > MAX_IMAGE_PX:
            raise DriveFormatError(f"camera picture: expected at most {MAX_IMAGE_PX} pixels, got {width}x{height}")
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, colorspace="BGR", fastdct=False)
    except ValueError as error:
        raise DriveFormatError(f"camera picture: expected a JPEG, got {len(jpeg)} bytes ({error})") from None
    return image


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
    message = topics.SCHEMAS[topic]()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise DriveFormatError(f"{topic}: expected a {message.DESCRIPTOR.full_name} message, got {error}") from None
    if topic == topics.CAMERA:
        return _decode_frame(message, seq, pictures)
    return _DECODERS[topic](message, seq)


def _encode_frame(frame: Frame) -> Message:
    jpeg = frame.jpeg
    if not jpeg:
        if frame.image is None:
            raise ValueError("a frame needs an image or a JPEG")
        jpeg = encode_jpeg(frame.image)
    return CompressedImage(timestamp=timestamp(frame.stamp_ns), frame_id="camera", data=jpeg, format="jpeg")


def _decode_frame(message: Any, seq: int, pictures: bool) -> Frame:
    if message.format not in ("jpeg", "jpg"):
        raise DriveFormatError(f"{topics.CAMERA}: expected format jpeg, got {message.format!r}")
    image = decode_jpeg(message.data) if pictures else None
    return Frame(timestamp_ns(message.timestamp), seq, image, message.data)


def _encode_audio(chunk: AudioChunk) -> Message:
    return RawAudio(
        timestamp=timestamp(chunk.stamp_ns),
        data=np.ascontiguousarray(chunk.pcm, dtype="<i2").tobytes(),
        format="pcm-s16",
        sample_rate=chunk.rate_hz,
        number_of_channels=1,
    )


def _decode_audio(message: Any, seq: int) -> AudioChunk:
    if message.format != "pcm-s16":
        raise DriveFormatError(f"{topics.AUDIO}: expected format pcm-s16, got {message.format!r}")
    channels = message.number_of_channels
    if channels < 1 or len(message.data) % (2 * channels):
        raise DriveFormatError(
            f"{topics.AUDIO}: expected whole samples of {channels} channels, got {len(message.data)} bytes"
        )
    if not 1_000 <= message.sample_rate <= 384_000:
        raise DriveFormatError(f"{topics.AUDIO}: expected a rate of 1..384 kHz, got {message.sample_rate} Hz")
    pcm = np.frombuffer(message.data, dtype="<i2")
    if channels > 1:  # mean of the channels, rounded towards zero, in integers so that every machine agrees
        pcm = (pcm.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels).astype(np.int16)
    return AudioChunk(timestamp_ns(message.timestamp), seq, message.sample_rate, pcm)


def _encode_imu(sample: ImuSample) -> Message:
    ax, ay, az = sample.accel_mps2
    gx, gy, gz = sample.gyro_radps
    return sensors_pb2.Imu(
        timestamp=timestamp(sample.stamp_ns),
        frame_id="imu",
        linear_acceleration_mps2=sensors_pb2.Vector3(x=ax, y=ay, z=az),
        angular_velocity_radps=sensors_pb2.Vector3(x=gx, y=gy, z=gz),
    )


def _decode_imu(message: Any, seq: int) -> ImuSample:
    accel, gyro = message.linear_acceleration_mps2, message.angular_velocity_radps
    sample = ImuSample(timestamp_ns(message.timestamp), seq, (accel.x, accel.y, accel.z), (gyro.x, gyro.y, gyro.z))
    _require_finite(topics.IMU, *sample.accel_mps2, *sample.gyro_radps)
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


def _decode_gnss(message: Any, seq: int) -> GnssFix:
    velocity = None
    if message.HasField("velocity"):
        velocity = (message.velocity.x, message.velocity.y, message.velocity.z)
        _require_finite(topics.GNSS, *velocity)
    _require_finite(topics.GNSS, message.latitude, message.longitude, message.altitude)
    return GnssFix(
        timestamp_ns(message.timestamp), seq, message.latitude, message.longitude, message.altitude, velocity
    )


def _encode_can(frame: CanFrame) -> Message:
    return sensors_pb2.CanFrame(
        timestamp=timestamp(frame.stamp_ns),
        bus=frame.bus,
        id=frame.id,
        is_extended=frame.is_extended,
        payload=frame.payload,
    )


def _decode_can(message: Any, seq: int) -> CanFrame:
    return CanFrame(timestamp_ns(message.timestamp), seq, message.bus, message.id, message.payload, message.is_extended)


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


def _decode_vehicle(message: Any, seq: int) -> VehicleState:
    has = message.HasField
    wheels = message.wheel_speeds if has("wheel_speeds") else None
    _require_finite(topics.VEHICLE, message.speed_mps)
    optional: dict[str, Any] = {name: getattr(message, name) for name in _OPTIONAL_VEHICLE_FIELDS if has(name)}
    _require_finite(topics.VEHICLE, *optional.values())
    return VehicleState(
        timestamp_ns(message.timestamp),
        seq,
        message.speed_mps,
        **optional,
        wheel_speeds_mps=None
        if wheels is None
        else (wheels.front_left_mps, wheels.front_right_mps, wheels.rear_left_mps, wheels.rear_right_mps),
    )


_POINT_FIELDS = ("x", "y", "z", "intensity")


def _encode_sweep(sweep: Sweep) -> Message:
    return PointCloud(
        timestamp=timestamp(sweep.stamp_ns),
        frame_id="lidar",
        point_stride=16,
        fields=[
            PackedElementField(name=name, offset=4 * i, type=PackedElementField.FLOAT32)
            for i, name in enumerate(_POINT_FIELDS)
        ],
        data=np.ascontiguousarray(sweep.points_lidar, dtype="<f4").tobytes(),
    )


def _decode_sweep(message: Any, seq: int) -> Sweep:
    stride = message.point_stride
    offsets = {field.name: field.offset for field in message.fields if field.type == PackedElementField.FLOAT32}
    missing = [name for name in _POINT_FIELDS[:3] if name not in offsets]
    if missing or stride < 12 or len(message.data) % stride or any(o + 4 > stride for o in offsets.values()):
        raise DriveFormatError(
            f"{topics.LIDAR}: expected float32 x, y, z in a whole number of points, "
            f"got stride {stride}, fields {sorted(offsets)}, {len(message.data)} bytes"
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
    return Sweep(timestamp_ns(message.timestamp), seq, points)


def _require_finite(topic: str, *values: float) -> None:
    for value in values:
        if not math.isfinite(value):
            raise DriveFormatError(f"{topic}: expected finite values, got {value}")


_ENCODERS: dict[type, Callable[[Any], Message]] = {
    Frame: _encode_frame,
    AudioChunk: _encode_audio,
    ImuSample: _encode_imu,
    GnssFix: _encode_gnss,
    CanFrame: _encode_can,
    VehicleState: _encode_vehicle,
    Sweep: _encode_sweep,
}
_DECODERS: dict[str, Callable[[Any, int], Sample]] = {
    topics.AUDIO: _decode_audio,
    topics.IMU: _decode_imu,
    topics.GNSS: _decode_gnss,
    topics.CAN: _decode_can,
    topics.VEHICLE: _decode_vehicle,
    topics.LIDAR: _decode_sweep,
}
