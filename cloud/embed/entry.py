"""A vector as bytes that a cache keeps: when it was made and under which key, with a checksum over all of it.

magic (8 bytes), Unix ns when it was made (u64), key (32), roadfuse.v1.EmbedVector, SHA-256 of all before it (32)
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from google.protobuf.message import DecodeError

from cloud.embed.item import Vector
from cloud.embed.wire import vector_message, vector_of
from cloud.errors import CloudError
from roadfuse.v1 import embed_pb2

MAX_BYTES: Final = 64 << 10
_HEAD: Final = struct.Struct("<8sQ32s")
_MAGIC: Final = b"RFEMBED1"
_SUM_BYTES: Final = 32


def packed(key: bytes, vector: Vector, made_s: float) -> bytes:
    """The entry of a vector that was made at this Unix time."""
    body = _HEAD.pack(_MAGIC, int(made_s * 1e9), key) + vector_message(vector).SerializeToString()
    return body + hashlib.sha256(body).digest()


def parsed(content: bytes, key: bytes) -> tuple[float, Vector] | None:
    """Unix time when an entry was made, and its vector; None where it is damaged, another's or of another version."""
    body, checksum = content[:-_SUM_BYTES], content[-_SUM_BYTES:]
    if len(body) <= _HEAD.size or len(content) > MAX_BYTES or hashlib.sha256(body).digest() != checksum:
        return None
    magic, made_ns, of_key = _HEAD.unpack_from(body)
    if magic != _MAGIC or of_key != key:
        return None
    try:
        return made_ns / 1e9, vector_of(embed_pb2.EmbedVector.FromString(body[_HEAD.size :]))
    except (DecodeError, CloudError):
        return None
