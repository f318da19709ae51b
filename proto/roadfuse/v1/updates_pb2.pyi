import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_IDLE: _ClassVar[Stage]
    STAGE_FETCHING: _ClassVar[Stage]
    STAGE_VERIFIED: _ClassVar[Stage]
    STAGE_BUILT: _ClassVar[Stage]
    STAGE_SELF_TESTED: _ClassVar[Stage]
    STAGE_SHADOWING: _ClassVar[Stage]
    STAGE_ARMED: _ClassVar[Stage]
    STAGE_PROBATION: _ClassVar[Stage]
    STAGE_CONFIRMED: _ClassVar[Stage]
    STAGE_REFUSED: _ClassVar[Stage]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]
    MODE_ACTIVATE: _ClassVar[Mode]
STAGE_UNSPECIFIED: Stage
STAGE_IDLE: Stage
STAGE_FETCHING: Stage
STAGE_VERIFIED: Stage
STAGE_BUILT: Stage
STAGE_SELF_TESTED: Stage
STAGE_SHADOWING: Stage
STAGE_ARMED: Stage
STAGE_PROBATION: Stage
STAGE_CONFIRMED: Stage
STAGE_REFUSED: Stage
MODE_UNSPECIFIED: Mode
MODE_SHADOW: Mode
MODE_ACTIVATE: Mode

class Tally(_message.Message):
    __slots__ = ("slice", "seconds", "frames", "counts")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SLICE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    slice: str
    seconds: float
    frames: int
    counts: _containers.ScalarMap[str, int]
    def __init__(self, slice: _Optional[str] = ..., seconds: _Optional[float] = ..., frames: _Optional[int] = ..., counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("bundle_id", "is_shadow", "account", "tallies")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    IS_SHADOW_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TALLIES_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    is_shadow: bool
    account: bytes
    tallies: _containers.RepeatedCompositeFieldContainer[Tally]
    def __init__(self, bundle_id: _Optional[str] = ..., is_shadow: _Optional[bool] = ..., account: _Optional[bytes] = ..., tallies: _Optional[_Iterable[_Union[Tally, _Mapping]]] = ...) -> None: ...

class SlotContent(_message.Message):
    __slots__ = ("bundle_id", "counter")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    counter: int
    def __init__(self, bundle_id: _Optional[str] = ..., counter: _Optional[int] = ...) -> None: ...

class VehicleManifest(_message.Message):
    __slots__ = ("vehicle", "hardware_class", "active", "previous", "staged", "stage", "why", "highest_counter", "nonce", "rollout", "software", "refused", "refused_until")
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_CLASS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_COUNTER_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    vehicle: str
    hardware_class: str
    active: SlotContent
    previous: SlotContent
    staged: SlotContent
    stage: Stage
    why: str
    highest_counter: int
    nonce: bytes
    rollout: str
    software: str
    refused: SlotContent
    refused_until: int
    def __init__(self, vehicle: _Optional[str] = ..., hardware_class: _Optional[str] = ..., active: _Optional[_Union[SlotContent, _Mapping]] = ..., previous: _Optional[_Union[SlotContent, _Mapping]] = ..., staged: _Optional[_Union[SlotContent, _Mapping]] = ..., stage: _Optional[_Union[Stage, str]] = ..., why: _Optional[str] = ..., highest_counter: _Optional[int] = ..., nonce: _Optional[bytes] = ..., rollout: _Optional[str] = ..., software: _Optional[str] = ..., refused: _Optional[_Union[SlotContent, _Mapping]] = ..., refused_until: _Optional[int] = ...) -> None: ...

class SignedManifest(_message.Message):
    __slots__ = ("manifest", "signature")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    signature: bytes
    def __init__(self, manifest: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BundleInUse(_message.Message):
    __slots__ = ("bundle_id", "previous_bundle_id", "why")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    previous_bundle_id: str
    why: str
    def __init__(self, bundle_id: _Optional[str] = ..., previous_bundle_id: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class CheckInRequest(_message.Message):
    __slots__ = ("nonce", "manifest", "evidence", "director_root_version", "image_root_version")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_ROOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ROOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    manifest: SignedManifest
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    director_root_version: int
    image_root_version: int
    def __init__(self, nonce: _Optional[bytes] = ..., manifest: _Optional[_Union[SignedManifest, _Mapping]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., director_root_version: _Optional[int] = ..., image_root_version: _Optional[int] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("director_roots", "director_timestamp", "director_snapshot", "director_targets", "image_roots", "image_timestamp", "next_contact_s")
    DIRECTOR_ROOTS_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_TARGETS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ROOTS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    NEXT_CONTACT_S_FIELD_NUMBER: _ClassVar[int]
    director_roots: _containers.RepeatedScalarFieldContainer[bytes]
    director_timestamp: bytes
    director_snapshot: bytes
    director_targets: bytes
    image_roots: _containers.RepeatedScalarFieldContainer[bytes]
    image_timestamp: bytes
    next_contact_s: float
    def __init__(self, director_roots: _Optional[_Iterable[bytes]] = ..., director_timestamp: _Optional[bytes] = ..., director_snapshot: _Optional[bytes] = ..., director_targets: _Optional[bytes] = ..., image_roots: _Optional[_Iterable[bytes]] = ..., image_timestamp: _Optional[bytes] = ..., next_contact_s: _Optional[float] = ...) -> None: ...

class ImageMetadataRequest(_message.Message):
    __slots__ = ("role", "version")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    role: str
    version: int
    def __init__(self, role: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ImageMetadataResponse(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchChunk(_message.Message):
    __slots__ = ("offset", "content", "crc32")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    offset: int
    content: bytes
    crc32: int
    def __init__(self, offset: _Optional[int] = ..., content: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class DeltaRequest(_message.Message):
    __slots__ = ("have_sha256", "want_sha256")
    HAVE_SHA256_FIELD_NUMBER: _ClassVar[int]
    WANT_SHA256_FIELD_NUMBER: _ClassVar[int]
    have_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    want_sha256: bytes
    def __init__(self, have_sha256: _Optional[_Iterable[bytes]] = ..., want_sha256: _Optional[bytes] = ...) -> None: ...

class DeltaResponse(_message.Message):
    __slots__ = ("base_sha256", "delta_sha256", "delta_bytes")
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    DELTA_SHA256_FIELD_NUMBER: _ClassVar[int]
    DELTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    base_sha256: bytes
    delta_sha256: bytes
    delta_bytes: int
    def __init__(self, base_sha256: _Optional[bytes] = ..., delta_sha256: _Optional[bytes] = ..., delta_bytes: _Optional[int] = ...) -> None: ...

class StopNotice(_message.Message):
    __slots__ = ("number", "bundle_ids", "at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_IDS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    bundle_ids: _containers.RepeatedScalarFieldContainer[str]
    at: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., bundle_ids: _Optional[_Iterable[str]] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
