import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Vector3(_message.Message):
    __slots__ = ("x", "y", "z")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    z: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class Imu(_message.Message):
    __slots__ = ("timestamp", "frame_id", "linear_acceleration_mps2", "angular_velocity_radps", "magnetic_field_ut")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    LINEAR_ACCELERATION_MPS2_FIELD_NUMBER: _ClassVar[int]
    ANGULAR_VELOCITY_RADPS_FIELD_NUMBER: _ClassVar[int]
    MAGNETIC_FIELD_UT_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    frame_id: str
    linear_acceleration_mps2: Vector3
    angular_velocity_radps: Vector3
    magnetic_field_ut: Vector3
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., frame_id: _Optional[str] = ..., linear_acceleration_mps2: _Optional[_Union[Vector3, _Mapping]] = ..., angular_velocity_radps: _Optional[_Union[Vector3, _Mapping]] = ..., magnetic_field_ut: _Optional[_Union[Vector3, _Mapping]] = ...) -> None: ...

class CanFrame(_message.Message):
    __slots__ = ("timestamp", "bus", "id", "is_extended", "payload")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    BUS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    IS_EXTENDED_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    bus: int
    id: int
    is_extended: bool
    payload: bytes
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bus: _Optional[int] = ..., id: _Optional[int] = ..., is_extended: _Optional[bool] = ..., payload: _Optional[bytes] = ...) -> None: ...

class WheelSpeeds(_message.Message):
    __slots__ = ("front_left_mps", "front_right_mps", "rear_left_mps", "rear_right_mps")
    FRONT_LEFT_MPS_FIELD_NUMBER: _ClassVar[int]
    FRONT_RIGHT_MPS_FIELD_NUMBER: _ClassVar[int]
    REAR_LEFT_MPS_FIELD_NUMBER: _ClassVar[int]
    REAR_RIGHT_MPS_FIELD_NUMBER: _ClassVar[int]
    front_left_mps: float
    front_right_mps: float
    rear_left_mps: float
    rear_right_mps: float
    def __init__(self, front_left_mps: _Optional[float] = ..., front_right_mps: _Optional[float] = ..., rear_left_mps: _Optional[float] = ..., rear_right_mps: _Optional[float] = ...) -> None: ...

class VehicleState(_message.Message):
    __slots__ = ("timestamp", "speed_mps", "steering_wheel_angle_rad", "yaw_rate_radps", "acceleration_mps2", "accelerator", "brake", "driver_in_control", "wheel_speeds")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SPEED_MPS_FIELD_NUMBER: _ClassVar[int]
    STEERING_WHEEL_ANGLE_RAD_FIELD_NUMBER: _ClassVar[int]
    YAW_RATE_RADPS_FIELD_NUMBER: _ClassVar[int]
    ACCELERATION_MPS2_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    BRAKE_FIELD_NUMBER: _ClassVar[int]
    DRIVER_IN_CONTROL_FIELD_NUMBER: _ClassVar[int]
    WHEEL_SPEEDS_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    speed_mps: float
    steering_wheel_angle_rad: float
    yaw_rate_radps: float
    acceleration_mps2: float
    accelerator: float
    brake: float
    driver_in_control: bool
    wheel_speeds: WheelSpeeds
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., speed_mps: _Optional[float] = ..., steering_wheel_angle_rad: _Optional[float] = ..., yaw_rate_radps: _Optional[float] = ..., acceleration_mps2: _Optional[float] = ..., accelerator: _Optional[float] = ..., brake: _Optional[float] = ..., driver_in_control: _Optional[bool] = ..., wheel_speeds: _Optional[_Union[WheelSpeeds, _Mapping]] = ...) -> None: ...
