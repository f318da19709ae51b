from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Modality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODALITY_UNSPECIFIED: _ClassVar[Modality]
    MODALITY_TEXT: _ClassVar[Modality]
    MODALITY_IMAGE: _ClassVar[Modality]
    MODALITY_AUDIO: _ClassVar[Modality]
    MODALITY_VIDEO: _ClassVar[Modality]
    MODALITY_MOTION: _ClassVar[Modality]
    MODALITY_LIDAR: _ClassVar[Modality]
MODALITY_UNSPECIFIED: Modality
MODALITY_TEXT: Modality
MODALITY_IMAGE: Modality
MODALITY_AUDIO: Modality
MODALITY_VIDEO: Modality
MODALITY_MOTION: Modality
MODALITY_LIDAR: Modality

class EmbedItem(_message.Message):
    __slots__ = ("modality", "text", "file")
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    modality: Modality
    text: str
    file: bytes
    def __init__(self, modality: _Optional[_Union[Modality, str]] = ..., text: _Optional[str] = ..., file: _Optional[bytes] = ...) -> None: ...

class EmbedVector(_message.Message):
    __slots__ = ("values", "space", "model", "modality", "instant_ns")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    INSTANT_NS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    space: str
    model: str
    modality: Modality
    instant_ns: int
    def __init__(self, values: _Optional[_Iterable[float]] = ..., space: _Optional[str] = ..., model: _Optional[str] = ..., modality: _Optional[_Union[Modality, str]] = ..., instant_ns: _Optional[int] = ...) -> None: ...

class EmbedFailure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class EmbedAnswer(_message.Message):
    __slots__ = ("vector", "failure")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    vector: EmbedVector
    failure: EmbedFailure
    def __init__(self, vector: _Optional[_Union[EmbedVector, _Mapping]] = ..., failure: _Optional[_Union[EmbedFailure, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[EmbedItem]
    def __init__(self, items: _Optional[_Iterable[_Union[EmbedItem, _Mapping]]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[EmbedAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[EmbedAnswer, _Mapping]]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EmbedModel(_message.Message):
    __slots__ = ("modality", "model")
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    modality: Modality
    model: str
    def __init__(self, modality: _Optional[_Union[Modality, str]] = ..., model: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("space", "models")
    SPACE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    space: str
    models: _containers.RepeatedCompositeFieldContainer[EmbedModel]
    def __init__(self, space: _Optional[str] = ..., models: _Optional[_Iterable[_Union[EmbedModel, _Mapping]]] = ...) -> None: ...
