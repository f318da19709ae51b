import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrueObject(_message.Message):
    __slots__ = ("id", "kind", "variant", "intent", "left_px", "top_px", "width_px", "height_px", "visibility", "x_m", "y_m", "speed_mps")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    INTENT_FIELD_NUMBER: _ClassVar[int]
    LEFT_PX_FIELD_NUMBER: _ClassVar[int]
    TOP_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    X_M_FIELD_NUMBER: _ClassVar[int]
    Y_M_FIELD_NUMBER: _ClassVar[int]
    SPEED_MPS_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: str
    variant: str
    intent: str
    left_px: float
    top_px: float
    width_px: float
    height_px: float
    visibility: float
    x_m: float
    y_m: float
    speed_mps: float
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[str] = ..., variant: _Optional[str] = ..., intent: _Optional[str] = ..., left_px: _Optional[float] = ..., top_px: _Optional[float] = ..., width_px: _Optional[float] = ..., height_px: _Optional[float] = ..., visibility: _Optional[float] = ..., x_m: _Optional[float] = ..., y_m: _Optional[float] = ..., speed_mps: _Optional[float] = ...) -> None: ...

class TrueLane(_message.Message):
    __slots__ = ("index", "kind", "x_px", "y_px")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    X_PX_FIELD_NUMBER: _ClassVar[int]
    Y_PX_FIELD_NUMBER: _ClassVar[int]
    index: int
    kind: str
    x_px: _containers.RepeatedScalarFieldContainer[float]
    y_px: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, index: _Optional[int] = ..., kind: _Optional[str] = ..., x_px: _Optional[_Iterable[float]] = ..., y_px: _Optional[_Iterable[float]] = ...) -> None: ...

class TrueSound(_message.Message):
    __slots__ = ("name", "level_dbfs", "bearing_rad", "onset_s", "prominence_db")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_DBFS_FIELD_NUMBER: _ClassVar[int]
    BEARING_RAD_FIELD_NUMBER: _ClassVar[int]
    ONSET_S_FIELD_NUMBER: _ClassVar[int]
    PROMINENCE_DB_FIELD_NUMBER: _ClassVar[int]
    name: str
    level_dbfs: float
    bearing_rad: float
    onset_s: float
    prominence_db: float
    def __init__(self, name: _Optional[str] = ..., level_dbfs: _Optional[float] = ..., bearing_rad: _Optional[float] = ..., onset_s: _Optional[float] = ..., prominence_db: _Optional[float] = ...) -> None: ...

class Caption(_message.Message):
    __slots__ = ("language", "text")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    language: str
    text: str
    def __init__(self, language: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class GroundTruth(_message.Message):
    __slots__ = ("timestamp", "frame_sequence", "weather", "light", "place", "objects", "lanes", "sounds", "ego_action", "speed_mps", "yaw_rate_radps", "acceleration_mps2", "east_m", "north_m", "heading_rad", "caption", "faults", "town", "surface_mask", "captions")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FRAME_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WEATHER_FIELD_NUMBER: _ClassVar[int]
    LIGHT_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    SOUNDS_FIELD_NUMBER: _ClassVar[int]
    EGO_ACTION_FIELD_NUMBER: _ClassVar[int]
    SPEED_MPS_FIELD_NUMBER: _ClassVar[int]
    YAW_RATE_RADPS_FIELD_NUMBER: _ClassVar[int]
    ACCELERATION_MPS2_FIELD_NUMBER: _ClassVar[int]
    EAST_M_FIELD_NUMBER: _ClassVar[int]
    NORTH_M_FIELD_NUMBER: _ClassVar[int]
    HEADING_RAD_FIELD_NUMBER: _ClassVar[int]
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    TOWN_FIELD_NUMBER: _ClassVar[int]
    SURFACE_MASK_FIELD_NUMBER: _ClassVar[int]
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    frame_sequence: int
    weather: str
    light: str
    place: str
    objects: _containers.RepeatedCompositeFieldContainer[TrueObject]
    lanes: _containers.RepeatedCompositeFieldContainer[TrueLane]
    sounds: _containers.RepeatedCompositeFieldContainer[TrueSound]
    ego_action: str
    speed_mps: float
    yaw_rate_radps: float
    acceleration_mps2: float
    east_m: float
    north_m: float
    heading_rad: float
    caption: str
    faults: _containers.RepeatedScalarFieldContainer[str]
    town: int
    surface_mask: bytes
    captions: _containers.RepeatedCompositeFieldContainer[Caption]
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., frame_sequence: _Optional[int] = ..., weather: _Optional[str] = ..., light: _Optional[str] = ..., place: _Optional[str] = ..., objects: _Optional[_Iterable[_Union[TrueObject, _Mapping]]] = ..., lanes: _Optional[_Iterable[_Union[TrueLane, _Mapping]]] = ..., sounds: _Optional[_Iterable[_Union[TrueSound, _Mapping]]] = ..., ego_action: _Optional[str] = ..., speed_mps: _Optional[float] = ..., yaw_rate_radps: _Optional[float] = ..., acceleration_mps2: _Optional[float] = ..., east_m: _Optional[float] = ..., north_m: _Optional[float] = ..., heading_rad: _Optional[float] = ..., caption: _Optional[str] = ..., faults: _Optional[_Iterable[str]] = ..., town: _Optional[int] = ..., surface_mask: _Optional[bytes] = ..., captions: _Optional[_Iterable[_Union[Caption, _Mapping]]] = ...) -> None: ...
