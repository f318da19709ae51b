from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchCondition(_message.Message):
    __slots__ = ("all_of", "any_of", "none_of", "sequence", "label", "range", "texts", "place")
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NONE_OF_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    all_of: SearchConditions
    any_of: SearchConditions
    none_of: SearchCondition
    sequence: SearchSequence
    label: SearchLabel
    range: SearchRange
    texts: SearchTexts
    place: SearchPlace
    def __init__(self, all_of: _Optional[_Union[SearchConditions, _Mapping]] = ..., any_of: _Optional[_Union[SearchConditions, _Mapping]] = ..., none_of: _Optional[_Union[SearchCondition, _Mapping]] = ..., sequence: _Optional[_Union[SearchSequence, _Mapping]] = ..., label: _Optional[_Union[SearchLabel, _Mapping]] = ..., range: _Optional[_Union[SearchRange, _Mapping]] = ..., texts: _Optional[_Union[SearchTexts, _Mapping]] = ..., place: _Optional[_Union[SearchPlace, _Mapping]] = ...) -> None: ...

class SearchConditions(_message.Message):
    __slots__ = ("conditions",)
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[SearchCondition]
    def __init__(self, conditions: _Optional[_Iterable[_Union[SearchCondition, _Mapping]]] = ...) -> None: ...

class SearchSequence(_message.Message):
    __slots__ = ("first", "second", "within_s")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    first: SearchCondition
    second: SearchCondition
    within_s: float
    def __init__(self, first: _Optional[_Union[SearchCondition, _Mapping]] = ..., second: _Optional[_Union[SearchCondition, _Mapping]] = ..., within_s: _Optional[float] = ...) -> None: ...

class SearchLabel(_message.Message):
    __slots__ = ("label", "least")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    label: str
    least: float
    def __init__(self, label: _Optional[str] = ..., least: _Optional[float] = ...) -> None: ...

class SearchRange(_message.Message):
    __slots__ = ("field", "low", "high")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    field: str
    low: float
    high: float
    def __init__(self, field: _Optional[str] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class SearchTexts(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchPlace(_message.Message):
    __slots__ = ("latitude_deg", "longitude_deg", "radius_m")
    LATITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_DEG_FIELD_NUMBER: _ClassVar[int]
    RADIUS_M_FIELD_NUMBER: _ClassVar[int]
    latitude_deg: float
    longitude_deg: float
    radius_m: float
    def __init__(self, latitude_deg: _Optional[float] = ..., longitude_deg: _Optional[float] = ..., radius_m: _Optional[float] = ...) -> None: ...

class SearchMoment(_message.Message):
    __slots__ = ("scene_id", "instant_ns")
    SCENE_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANT_NS_FIELD_NUMBER: _ClassVar[int]
    scene_id: int
    instant_ns: int
    def __init__(self, scene_id: _Optional[int] = ..., instant_ns: _Optional[int] = ...) -> None: ...

class SearchExample(_message.Message):
    __slots__ = ("text", "image", "sound", "clip", "moment", "vector", "weight")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SOUND_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: bytes
    sound: bytes
    clip: bytes
    moment: SearchMoment
    vector: SearchVector
    weight: float
    def __init__(self, text: _Optional[str] = ..., image: _Optional[bytes] = ..., sound: _Optional[bytes] = ..., clip: _Optional[bytes] = ..., moment: _Optional[_Union[SearchMoment, _Mapping]] = ..., vector: _Optional[_Union[SearchVector, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class SearchVector(_message.Message):
    __slots__ = ("values", "space", "modality")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    space: str
    modality: str
    def __init__(self, values: _Optional[_Iterable[float]] = ..., space: _Optional[str] = ..., modality: _Optional[str] = ...) -> None: ...

class SearchQuery(_message.Message):
    __slots__ = ("text", "condition", "examples")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    text: str
    condition: SearchCondition
    examples: _containers.RepeatedCompositeFieldContainer[SearchExample]
    def __init__(self, text: _Optional[str] = ..., condition: _Optional[_Union[SearchCondition, _Mapping]] = ..., examples: _Optional[_Iterable[_Union[SearchExample, _Mapping]]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("query", "limit", "cursor", "explain")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    query: SearchQuery
    limit: int
    cursor: str
    explain: bool
    def __init__(self, query: _Optional[_Union[SearchQuery, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., explain: _Optional[bool] = ...) -> None: ...

class SearchAnswer(_message.Message):
    __slots__ = ("scene_id", "vehicle", "outbox", "sequence", "instant_ns", "score", "confidence", "labels", "modalities")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ModalitiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SCENE_ID_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INSTANT_NS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    scene_id: int
    vehicle: str
    outbox: bytes
    sequence: int
    instant_ns: int
    score: float
    confidence: float
    labels: _containers.ScalarMap[str, float]
    modalities: _containers.ScalarMap[str, float]
    def __init__(self, scene_id: _Optional[int] = ..., vehicle: _Optional[str] = ..., outbox: _Optional[bytes] = ..., sequence: _Optional[int] = ..., instant_ns: _Optional[int] = ..., score: _Optional[float] = ..., confidence: _Optional[float] = ..., labels: _Optional[_Mapping[str, float]] = ..., modalities: _Optional[_Mapping[str, float]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("answers", "condition", "path", "matching", "cursor", "elapsed_ms", "notes")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[SearchAnswer]
    condition: SearchCondition
    path: str
    matching: int
    cursor: str
    elapsed_ms: float
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, answers: _Optional[_Iterable[_Union[SearchAnswer, _Mapping]]] = ..., condition: _Optional[_Union[SearchCondition, _Mapping]] = ..., path: _Optional[str] = ..., matching: _Optional[int] = ..., cursor: _Optional[str] = ..., elapsed_ms: _Optional[float] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SearchRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SearchRequest, _Mapping]]] = ...) -> None: ...

class SearchFailure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class SearchOutcome(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: SearchResponse
    failure: SearchFailure
    def __init__(self, response: _Optional[_Union[SearchResponse, _Mapping]] = ..., failure: _Optional[_Union[SearchFailure, _Mapping]] = ...) -> None: ...

class SearchBatchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[SearchOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[SearchOutcome, _Mapping]]] = ...) -> None: ...

class UnderstandRequest(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class UnderstandResponse(_message.Message):
    __slots__ = ("condition", "residual")
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    condition: SearchCondition
    residual: str
    def __init__(self, condition: _Optional[_Union[SearchCondition, _Mapping]] = ..., residual: _Optional[str] = ...) -> None: ...

class StatisticsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatisticsResponse(_message.Message):
    __slots__ = ("space", "model", "scenes", "moments", "indexed_moments", "index_recall", "age_s")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCENES_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    INDEXED_MOMENTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_RECALL_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    space: str
    model: str
    scenes: int
    moments: int
    indexed_moments: int
    index_recall: float
    age_s: float
    def __init__(self, space: _Optional[str] = ..., model: _Optional[str] = ..., scenes: _Optional[int] = ..., moments: _Optional[int] = ..., indexed_moments: _Optional[int] = ..., index_recall: _Optional[float] = ..., age_s: _Optional[float] = ...) -> None: ...
