import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMIT_REASON_UNSPECIFIED: _ClassVar[EmitReason]
    EMIT_REASON_SETTLED: _ClassVar[EmitReason]
    EMIT_REASON_DEADLINE: _ClassVar[EmitReason]
    EMIT_REASON_VALUE: _ClassVar[EmitReason]

class SceneState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCENE_STATE_UNSPECIFIED: _ClassVar[SceneState]
    SCENE_STATE_QUIET: _ClassVar[SceneState]
    SCENE_STATE_OPENED: _ClassVar[SceneState]
    SCENE_STATE_OPEN: _ClassVar[SceneState]
    SCENE_STATE_QUEUED: _ClassVar[SceneState]
    SCENE_STATE_REFUSED: _ClassVar[SceneState]
EMIT_REASON_UNSPECIFIED: EmitReason
EMIT_REASON_SETTLED: EmitReason
EMIT_REASON_DEADLINE: EmitReason
EMIT_REASON_VALUE: EmitReason
SCENE_STATE_UNSPECIFIED: SceneState
SCENE_STATE_QUIET: SceneState
SCENE_STATE_OPENED: SceneState
SCENE_STATE_OPEN: SceneState
SCENE_STATE_QUEUED: SceneState
SCENE_STATE_REFUSED: SceneState

class ModalityState(_message.Message):
    __slots__ = ("stream", "present", "age_ns", "samples", "absence")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    AGE_NS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ABSENCE_FIELD_NUMBER: _ClassVar[int]
    stream: str
    present: bool
    age_ns: int
    samples: int
    absence: str
    def __init__(self, stream: _Optional[str] = ..., present: _Optional[bool] = ..., age_ns: _Optional[int] = ..., samples: _Optional[int] = ..., absence: _Optional[str] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("name", "value", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    weight: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., weight: _Optional[float] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ("name", "probability")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    probability: float
    def __init__(self, name: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class DetectedObject(_message.Message):
    __slots__ = ("name", "probability", "left_px", "top_px", "width_px", "height_px", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LEFT_PX_FIELD_NUMBER: _ClassVar[int]
    TOP_PX_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    probability: float
    left_px: float
    top_px: float
    width_px: float
    height_px: float
    kind: str
    def __init__(self, name: _Optional[str] = ..., probability: _Optional[float] = ..., left_px: _Optional[float] = ..., top_px: _Optional[float] = ..., width_px: _Optional[float] = ..., height_px: _Optional[float] = ..., kind: _Optional[str] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("label", "value")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    label: str
    value: float
    def __init__(self, label: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class HeadReadings(_message.Message):
    __slots__ = ("name", "readings")
    NAME_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, name: _Optional[str] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("name", "labels", "rows", "columns", "cells")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    rows: int
    columns: int
    cells: bytes
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., cells: _Optional[bytes] = ...) -> None: ...

class Suspect(_message.Message):
    __slots__ = ("stream", "kind", "evidence", "since_ns")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    kind: str
    evidence: float
    since_ns: int
    def __init__(self, stream: _Optional[str] = ..., kind: _Optional[str] = ..., evidence: _Optional[float] = ..., since_ns: _Optional[int] = ...) -> None: ...

class ClockOffset(_message.Message):
    __slots__ = ("stream", "late_ns", "confidence")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LATE_NS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    stream: str
    late_ns: int
    confidence: float
    def __init__(self, stream: _Optional[str] = ..., late_ns: _Optional[int] = ..., confidence: _Optional[float] = ...) -> None: ...

class RigDoubt(_message.Message):
    __slots__ = ("axis", "amount", "since_ns", "score")
    AXIS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_NS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    axis: str
    amount: float
    since_ns: int
    score: float
    def __init__(self, axis: _Optional[str] = ..., amount: _Optional[float] = ..., since_ns: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class Alignment(_message.Message):
    __slots__ = ("agreement", "suspects", "clocks", "rig")
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    SUSPECTS_FIELD_NUMBER: _ClassVar[int]
    CLOCKS_FIELD_NUMBER: _ClassVar[int]
    RIG_FIELD_NUMBER: _ClassVar[int]
    agreement: float
    suspects: _containers.RepeatedCompositeFieldContainer[Suspect]
    clocks: _containers.RepeatedCompositeFieldContainer[ClockOffset]
    rig: RigDoubt
    def __init__(self, agreement: _Optional[float] = ..., suspects: _Optional[_Iterable[_Union[Suspect, _Mapping]]] = ..., clocks: _Optional[_Iterable[_Union[ClockOffset, _Mapping]]] = ..., rig: _Optional[_Union[RigDoubt, _Mapping]] = ...) -> None: ...

class CampaignMatch(_message.Message):
    __slots__ = ("campaign", "score")
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    campaign: str
    score: float
    def __init__(self, campaign: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class PutBack(_message.Message):
    __slots__ = ("bundle_id", "why")
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    bundle_id: str
    why: str
    def __init__(self, bundle_id: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class StageDigest(_message.Message):
    __slots__ = ("stage", "tensor", "crc32")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    stage: str
    tensor: str
    crc32: int
    def __init__(self, stage: _Optional[str] = ..., tensor: _Optional[str] = ..., crc32: _Optional[int] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "elapsed_ns")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_NS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    elapsed_ns: int
    def __init__(self, stage: _Optional[str] = ..., elapsed_ns: _Optional[int] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("timestamp", "frame_sequence", "index", "emitted_ns", "emit_reason", "modalities", "overload_level", "hardness", "scores", "scene_tags", "sound_events", "objects", "embedding", "scene_state", "scene", "scene_refusal", "digests", "bundle_id", "timings", "degraded", "heads", "masks", "alignment", "campaigns", "put_back")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    FRAME_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EMITTED_NS_FIELD_NUMBER: _ClassVar[int]
    EMIT_REASON_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_LEVEL_FIELD_NUMBER: _ClassVar[int]
    HARDNESS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SCENE_TAGS_FIELD_NUMBER: _ClassVar[int]
    SOUND_EVENTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    SCENE_STATE_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    SCENE_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGNS_FIELD_NUMBER: _ClassVar[int]
    PUT_BACK_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    frame_sequence: int
    index: int
    emitted_ns: int
    emit_reason: EmitReason
    modalities: _containers.RepeatedCompositeFieldContainer[ModalityState]
    overload_level: int
    hardness: float
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    scene_tags: _containers.RepeatedCompositeFieldContainer[Tag]
    sound_events: _containers.RepeatedCompositeFieldContainer[Tag]
    objects: _containers.RepeatedCompositeFieldContainer[DetectedObject]
    embedding: _containers.RepeatedScalarFieldContainer[float]
    scene_state: SceneState
    scene: int
    scene_refusal: str
    digests: _containers.RepeatedCompositeFieldContainer[StageDigest]
    bundle_id: str
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    degraded: bool
    heads: _containers.RepeatedCompositeFieldContainer[HeadReadings]
    masks: _containers.RepeatedCompositeFieldContainer[Mask]
    alignment: Alignment
    campaigns: _containers.RepeatedCompositeFieldContainer[CampaignMatch]
    put_back: PutBack
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., frame_sequence: _Optional[int] = ..., index: _Optional[int] = ..., emitted_ns: _Optional[int] = ..., emit_reason: _Optional[_Union[EmitReason, str]] = ..., modalities: _Optional[_Iterable[_Union[ModalityState, _Mapping]]] = ..., overload_level: _Optional[int] = ..., hardness: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., scene_tags: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ..., sound_events: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ..., objects: _Optional[_Iterable[_Union[DetectedObject, _Mapping]]] = ..., embedding: _Optional[_Iterable[float]] = ..., scene_state: _Optional[_Union[SceneState, str]] = ..., scene: _Optional[int] = ..., scene_refusal: _Optional[str] = ..., digests: _Optional[_Iterable[_Union[StageDigest, _Mapping]]] = ..., bundle_id: _Optional[str] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., degraded: _Optional[bool] = ..., heads: _Optional[_Iterable[_Union[HeadReadings, _Mapping]]] = ..., masks: _Optional[_Iterable[_Union[Mask, _Mapping]]] = ..., alignment: _Optional[_Union[Alignment, _Mapping]] = ..., campaigns: _Optional[_Iterable[_Union[CampaignMatch, _Mapping]]] = ..., put_back: _Optional[_Union[PutBack, _Mapping]] = ...) -> None: ...
