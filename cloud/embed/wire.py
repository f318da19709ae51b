"""Items, vectors and errors as messages, and back: the one place that does."""

from __future__ import annotations

from typing import Any, Final

import grpc
import numpy as np

from cloud.embed.item import MODALITIES, Item, Modality, Vector
from cloud.embed.refusals import malformed
from cloud.errors import CloudError, Refused
from roadfuse.v1 import embed_pb2

# The numbers of roadfuse.v1.Modality follow the order of ours, from 1.
NUMBERS: Final[dict[Modality, Any]] = {name: number for number, name in enumerate(MODALITIES, 1)}
_NAMES: Final = dict(enumerate(MODALITIES, 1))
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_MAX_VALUES: Final = 1 << 16


def item_message(modality: Modality, content: bytes) -> embed_pb2.EmbedItem:
    """Content as a message; text that is none goes as a file, for the server to refuse."""
    if modality == "text":
        try:
            return embed_pb2.EmbedItem(modality=NUMBERS["text"], text=content.decode())
        except UnicodeDecodeError:
            pass
    return embed_pb2.EmbedItem(modality=NUMBERS[modality], file=content)


def item_of(message: embed_pb2.EmbedItem) -> Item:
    """The item of a message.

    Raises:
        Refused: it has no content, or no modality that we know.
    """
    kind = message.WhichOneof("content")
    if kind is None:
        raise malformed("item: expected text or a file, got neither")
    if kind == "text":
        if message.modality not in (0, NUMBERS["text"]):
            raise malformed(f"item: expected a file of {_NAMES.get(message.modality, 'a modality')}, got text")
        return Item("text", message.text.encode())
    if message.modality not in _NAMES:
        raise malformed(f"item: expected a modality of 1..{len(_NAMES)}, got {message.modality}")
    return Item(_NAMES[message.modality], message.file)


def vector_message(vector: Vector) -> embed_pb2.EmbedVector:
    """A vector as a message."""
    return embed_pb2.EmbedVector(
        values=vector.array.tolist(), space=vector.space, model=vector.model, modality=NUMBERS[vector.modality],
        instant_ns=vector.instant_ns,
    )  # fmt: skip


def vector_of(message: embed_pb2.EmbedVector) -> Vector:
    """The vector of a message.

    Raises:
        Refused: it is none of unit length.
    """
    values = np.asarray(message.values, "<f4")
    if not 0 < len(values) <= _MAX_VALUES or not abs(float(np.linalg.norm(values)) - 1.0) < 1e-3:
        raise malformed(f"vector: expected one of unit length, got {len(values)} values")
    if message.modality not in _NAMES or message.instant_ns >= 1 << 63:
        raise malformed(f"vector: expected a modality of 1..{len(_NAMES)}, got {message.modality}")
    return Vector(values.tobytes(), message.space, message.model, _NAMES[message.modality], message.instant_ns)


def answer_message(answer: Vector | CloudError) -> embed_pb2.EmbedAnswer:
    """A vector or an error as a message."""
    if isinstance(answer, Vector):
        return embed_pb2.EmbedAnswer(vector=vector_message(answer))
    code = answer.status if isinstance(answer, Refused) else grpc.StatusCode.INTERNAL
    line = " ".join(str(answer).split())
    return embed_pb2.EmbedAnswer(failure=embed_pb2.EmbedFailure(code=code.value[0], message=line))


def answer_of(message: embed_pb2.EmbedAnswer) -> Vector | CloudError:
    """The vector or error of a message."""
    if message.WhichOneof("answer") == "vector":
        try:
            return vector_of(message.vector)
        except CloudError as error:
            return error
    code = _CODES.get(message.failure.code, grpc.StatusCode.INTERNAL)
    return Refused(grpc.StatusCode.INTERNAL if code is grpc.StatusCode.OK else code, message.failure.message)


def models_message(models: dict[Modality, str]) -> list[embed_pb2.EmbedModel]:
    """Modalities and what encodes them."""
    return [embed_pb2.EmbedModel(modality=NUMBERS[name], model=model) for name, model in models.items()]


def models_of(described: embed_pb2.DescribeResponse) -> dict[Modality, str]:
    """Modality -> model."""
    return {_NAMES[entry.modality]: entry.model for entry in described.models if entry.modality in _NAMES}
