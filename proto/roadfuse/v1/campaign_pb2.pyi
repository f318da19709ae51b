import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Conditions(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, parts: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Likely(_message.Message):
    __slots__ = ("name", "is_sound", "least")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IS_SOUND_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    name: str
    is_sound: bool
    least: float
    def __init__(self, name: _Optional[str] = ..., is_sound: _Optional[bool] = ..., least: _Optional[float] = ...) -> None: ...

class Bounds(_message.Message):
    __slots__ = ("name", "low", "high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    low: float
    high: float
    def __init__(self, name: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Within(_message.Message):
    __slots__ = ("latitude_deg", "longitude_deg", "radius_m")
    LATITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    RADIUS_M_FIELD_NUMBER: _ClassVar[int]
    latitude_deg: float
    longitude_deg: float
    radius_m: float
    def __init__(self, latitude_deg: _Optional[float] = ..., longitude_deg: _Optional[float] = ..., radius_m: _Optional[float] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("all_of", "any_of", "negated", "likely", "bounds", "within", "vehicles", "bundles")
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NEGATED_FIELD_NUMBER: _ClassVar[int]
    LIKELY_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    VEHICLES_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    all_of: Conditions
    any_of: Conditions
    negated: Condition
    likely: Likely
    bounds: Bounds
    within: Within
    vehicles: Names
    bundles: Names
    def __init__(self, all_of: _Optional[_Union[Conditions, _Mapping]] = ..., any_of: _Optional[_Union[Conditions, _Mapping]] = ..., negated: _Optional[_Union[Condition, _Mapping]] = ..., likely: _Optional[_Union[Likely, _Mapping]] = ..., bounds: _Optional[_Union[Bounds, _Mapping]] = ..., within: _Optional[_Union[Within, _Mapping]] = ..., vehicles: _Optional[_Union[Names, _Mapping]] = ..., bundles: _Optional[_Union[Names, _Mapping]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("campaign", "name", "revision", "is_stopped", "bundle_id", "embedding", "embedding_scale", "least_cosine", "condition", "budget_bytes", "vehicle_budget_bytes", "not_before", "expires", "weight")
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_STOPPED_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_SCALE_FIELD_NUMBER: _ClassVar[int]
    LEAST_COSINE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    campaign: str
    name: str
    revision: int
    is_stopped: bool
    bundle_id: str
    embedding: bytes
    embedding_scale: float
    least_cosine: float
    condition: Condition
    budget_bytes: int
    vehicle_budget_bytes: int
    not_before: _timestamp_pb2.Timestamp
    expires: _timestamp_pb2.Timestamp
    weight: float
    def __init__(self, campaign: _Optional[str] = ..., name: _Optional[str] = ..., revision: _Optional[int] = ..., is_stopped: _Optional[bool] = ..., bundle_id: _Optional[str] = ..., embedding: _Optional[bytes] = ..., embedding_scale: _Optional[float] = ..., least_cosine: _Optional[float] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ..., budget_bytes: _Optional[int] = ..., vehicle_budget_bytes: _Optional[int] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class SignedProbe(_message.Message):
    __slots__ = ("probe", "certificate", "signature")
    PROBE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    probe: bytes
    certificate: bytes
    signature: bytes
    def __init__(self, probe: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ProbeOffer(_message.Message):
    __slots__ = ("digest", "probes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    probes: _containers.RepeatedCompositeFieldContainer[SignedProbe]
    def __init__(self, digest: _Optional[bytes] = ..., probes: _Optional[_Iterable[_Union[SignedProbe, _Mapping]]] = ...) -> None: ...

class ProbeSet(_message.Message):
    __slots__ = ("probes", "vehicle", "written")
    PROBES_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    probes: _containers.RepeatedCompositeFieldContainer[Probe]
    vehicle: str
    written: _timestamp_pb2.Timestamp
    def __init__(self, probes: _Optional[_Iterable[_Union[Probe, _Mapping]]] = ..., vehicle: _Optional[str] = ..., written: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("id", "first_ns", "last_ns", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_NS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    first_ns: int
    last_ns: int
    reason: str
    def __init__(self, id: _Optional[str] = ..., first_ns: _Optional[int] = ..., last_ns: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AskAnswer(_message.Message):
    __slots__ = ("id", "answer")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    id: str
    answer: str
    def __init__(self, id: _Optional[str] = ..., answer: _Optional[str] = ...) -> None: ...
