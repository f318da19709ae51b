import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from roadfuse.v1 import campaign_pb2 as _campaign_pb2
from roadfuse.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MediaState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEDIA_STATE_UNSPECIFIED: _ClassVar[MediaState]
    MEDIA_STATE_HELD: _ClassVar[MediaState]
    MEDIA_STATE_EVICTED: _ClassVar[MediaState]
    MEDIA_STATE_LOST: _ClassVar[MediaState]
MEDIA_STATE_UNSPECIFIED: MediaState
MEDIA_STATE_HELD: MediaState
MEDIA_STATE_EVICTED: MediaState
MEDIA_STATE_LOST: MediaState

class ShadowOpinion(_message.Message):
    __slots__ = ("bundle_id", "scene_tags", "sound_events")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_TAGS_FIELD_NUMBER: _ClassVar[int]
    SOUND_EVENTS_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    scene_tags: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Tag]
    sound_events: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Tag]
    def __init__(self, bundle_id: _Optional[str] = ..., scene_tags: _Optional[_Iterable[_Union[_decision_pb2.Tag, _Mapping]]] = ..., sound_events: _Optional[_Iterable[_Union[_decision_pb2.Tag, _Mapping]]] = ...) -> None: ...

class SceneSummary(_message.Message):
    __slots__ = ("sequence", "first_ns", "last_ns", "peak_ns", "recorded_at", "hardness", "scores", "scene_tags", "sound_events", "embedding", "embedding_scale", "bundle_id", "media", "reason", "bytes", "sha256", "lane_probability", "latitude_deg", "longitude_deg", "former_sha256", "campaigns", "shadow")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_NS_FIELD_NUMBER: _ClassVar[int]
    PEAK_NS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    HARDNESS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SCENE_TAGS_FIELD_NUMBER: _ClassVar[int]
    SOUND_EVENTS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_SCALE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LANE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LATITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    FORMER_SHA256_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGNS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    first_ns: int
    last_ns: int
    peak_ns: int
    recorded_at: _timestamp_pb2.Timestamp
    hardness: float
    scores: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Score]
    scene_tags: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Tag]
    sound_events: _containers.RepeatedCompositeFieldContainer[_decision_pb2.Tag]
    embedding: bytes
    embedding_scale: float
    bundle_id: str
    media: MediaState
    reason: str
    bytes: int
    sha256: bytes
    lane_probability: float
    latitude_deg: float
    longitude_deg: float
    former_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    campaigns: _containers.RepeatedCompositeFieldContainer[_decision_pb2.CampaignMatch]
    shadow: ShadowOpinion
    def __init__(self, sequence: _Optional[int] = ..., first_ns: _Optional[int] = ..., last_ns: _Optional[int] = ..., peak_ns: _Optional[int] = ..., recorded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hardness: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[_decision_pb2.Score, _Mapping]]] = ..., scene_tags: _Optional[_Iterable[_Union[_decision_pb2.Tag, _Mapping]]] = ..., sound_events: _Optional[_Iterable[_Union[_decision_pb2.Tag, _Mapping]]] = ..., embedding: _Optional[bytes] = ..., embedding_scale: _Optional[float] = ..., bundle_id: _Optional[str] = ..., media: _Optional[_Union[MediaState, str]] = ..., reason: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., lane_probability: _Optional[float] = ..., latitude_deg: _Optional[float] = ..., longitude_deg: _Optional[float] = ..., former_sha256: _Optional[_Iterable[bytes]] = ..., campaigns: _Optional[_Iterable[_Union[_decision_pb2.CampaignMatch, _Mapping]]] = ..., shadow: _Optional[_Union[ShadowOpinion, _Mapping]] = ...) -> None: ...

class Eviction(_message.Message):
    __slots__ = ("sequence", "media", "reason")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    media: MediaState
    reason: str
    def __init__(self, sequence: _Optional[int] = ..., media: _Optional[_Union[MediaState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("campaign", "sequence", "score")
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    campaign: str
    sequence: int
    score: float
    def __init__(self, campaign: _Optional[str] = ..., sequence: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("outbox", "last_sequence", "scenes", "evictions", "probes_digest", "choices", "answers")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SCENES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    PROBES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    last_sequence: int
    scenes: _containers.RepeatedCompositeFieldContainer[SceneSummary]
    evictions: _containers.RepeatedCompositeFieldContainer[Eviction]
    probes_digest: bytes
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    answers: _containers.RepeatedCompositeFieldContainer[_campaign_pb2.AskAnswer]
    def __init__(self, outbox: _Optional[bytes] = ..., last_sequence: _Optional[int] = ..., scenes: _Optional[_Iterable[_Union[SceneSummary, _Mapping]]] = ..., evictions: _Optional[_Iterable[_Union[Eviction, _Mapping]]] = ..., probes_digest: _Optional[bytes] = ..., choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[_campaign_pb2.AskAnswer, _Mapping]]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("wanted", "offer", "asks", "now")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    wanted: _containers.RepeatedScalarFieldContainer[int]
    offer: _campaign_pb2.ProbeOffer
    asks: _containers.RepeatedCompositeFieldContainer[_campaign_pb2.Ask]
    now: _timestamp_pb2.Timestamp
    def __init__(self, wanted: _Optional[_Iterable[int]] = ..., offer: _Optional[_Union[_campaign_pb2.ProbeOffer, _Mapping]] = ..., asks: _Optional[_Iterable[_Union[_campaign_pb2.Ask, _Mapping]]] = ..., now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("outbox", "sequence", "bytes", "sha256")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    sequence: int
    bytes: int
    sha256: bytes
    def __init__(self, outbox: _Optional[bytes] = ..., sequence: _Optional[int] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class BeginResponse(_message.Message):
    __slots__ = ("durable_offset", "is_complete")
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    durable_offset: int
    is_complete: bool
    def __init__(self, durable_offset: _Optional[int] = ..., is_complete: _Optional[bool] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("outbox", "sequence", "offset", "content", "crc32")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    sequence: int
    offset: int
    content: bytes
    crc32: int
    def __init__(self, outbox: _Optional[bytes] = ..., sequence: _Optional[int] = ..., offset: _Optional[int] = ..., content: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("durable_offset",)
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    durable_offset: int
    def __init__(self, durable_offset: _Optional[int] = ...) -> None: ...

class CompleteRequest(_message.Message):
    __slots__ = ("outbox", "sequence")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    sequence: int
    def __init__(self, outbox: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class CompleteResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("outbox", "sequence", "sha256", "content")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    sequence: int
    sha256: bytes
    content: bytes
    def __init__(self, outbox: _Optional[bytes] = ..., sequence: _Optional[int] = ..., sha256: _Optional[bytes] = ..., content: _Optional[bytes] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AccountRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OutboxAccount(_message.Message):
    __slots__ = ("outbox", "given", "received", "evicted", "lost", "on_board", "missing", "missing_sequences")
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    ON_BOARD_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    MISSING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    outbox: bytes
    given: int
    received: int
    evicted: int
    lost: int
    on_board: int
    missing: int
    missing_sequences: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, outbox: _Optional[bytes] = ..., given: _Optional[int] = ..., received: _Optional[int] = ..., evicted: _Optional[int] = ..., lost: _Optional[int] = ..., on_board: _Optional[int] = ..., missing: _Optional[int] = ..., missing_sequences: _Optional[_Iterable[int]] = ...) -> None: ...

class AccountResponse(_message.Message):
    __slots__ = ("vehicle", "outboxes")
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    OUTBOXES_FIELD_NUMBER: _ClassVar[int]
    vehicle: str
    outboxes: _containers.RepeatedCompositeFieldContainer[OutboxAccount]
    def __init__(self, vehicle: _Optional[str] = ..., outboxes: _Optional[_Iterable[_Union[OutboxAccount, _Mapping]]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate", "chain")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    chain: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., chain: _Optional[bytes] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("csr", "token")
    CSR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    token: str
    def __init__(self, csr: _Optional[bytes] = ..., token: _Optional[str] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("certificate", "chain", "director_root", "image_root")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_ROOT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ROOT_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    chain: bytes
    director_root: bytes
    image_root: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., chain: _Optional[bytes] = ..., director_root: _Optional[bytes] = ..., image_root: _Optional[bytes] = ...) -> None: ...
