"""Small updates: a file as its difference from one that is on board, bit for bit.

A delta of an ONNX file goes tensor by tensor (edge/updates/tensors.py): with frozen scales what training changed a
little is a little different, and most int8 weights are the same. Any other file, and any ONNX file where that is
smaller, is the zstd frame of its bytes with the base as dictionary.
Whoever makes a delta applies it once before it is given out; who applies one knows the length and the digest of the
file from signed metadata, and trusts nothing that a delta says.

    "rfd1", kind (1 byte), first 8 bytes of the base's SHA-256, length of the result (8 bytes, little-endian), body
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import zstandard

from edge.errors import UpdateError
from edge.updates import frames, tensors

MAGIC: Final = b"rfd1"
GENERIC: Final = 0
TENSORS: Final = 1
MAX_BYTES: Final = 2_000_000_000  # of a file, as edge/model_file.py
_HEAD: Final = struct.Struct("<4sB8sQ")
# What a damaged or hostile body runs into.
_BROKEN: Final = (zstandard.ZstdError, struct.error, ValueError, IndexError, OverflowError, MemoryError)


def make(base: bytes, want: bytes) -> bytes:
    """A small delta that makes `want` of `base`; the same for the same files.

    Raises:
        UpdateError: a file is too large, or no delta gives the same bytes again.
    """
    longest = max(len(base), len(want))
    if longest > MAX_BYTES:
        raise UpdateError(f"delta: expected files of at most {MAX_BYTES} bytes, got {longest}")
    by_tensor = tensors.make(base, want)
    bodies = [] if by_tensor is None else [(TENSORS, by_tensor)]
    if by_tensor is None or 2 * len(by_tensor) > len(want):  # else the other way is hardly better, and takes long
        bodies.append((GENERIC, frames.shrunk(want, base)))
    for kind, body in sorted(bodies, key=lambda one: len(one[1])):
        delta = _HEAD.pack(MAGIC, kind, _mark(base), len(want)) + body
        if _gives(base, delta, want):
            return delta
    raise UpdateError(f"delta: expected {len(want)} bytes again from the delta, got others")


def apply(base: bytes, delta: bytes, length: int) -> bytes:
    """The file that a delta makes of a base; its digest is the caller's to check.

    Memory is bounded by the two files: nothing is unfolded that the signed length leaves no room for.

    Args:
        length: of the file, as it was signed.

    Raises:
        UpdateError: it is no delta, one of another base, one of another length, or damaged.
    """
    if not 0 <= length <= MAX_BYTES:
        raise UpdateError(f"delta: expected a file of at most {MAX_BYTES} bytes, got {length}")
    if len(delta) < _HEAD.size or not delta.startswith(MAGIC):
        raise UpdateError(f"delta: expected {MAGIC.decode()} and a body, got {len(delta)} bytes that are none")
    _, kind, mark, told = _HEAD.unpack_from(delta)
    if mark != _mark(base):
        raise UpdateError(f"delta: expected one of the base {_mark(base).hex()}, got one of {mark.hex()}")
    if told != length:
        raise UpdateError(f"delta: expected one that makes {length} bytes, got one of {told}")
    body = memoryview(delta)[_HEAD.size :]
    try:
        if kind == GENERIC:
            return frames.unfolded(body, length, base)
        if kind == TENSORS:
            return tensors.apply(base, body, length)
    except _BROKEN as error:
        raise UpdateError(f"delta: expected a whole one, got: {' '.join(str(error).split())[:160]}") from None
    raise UpdateError(f"delta: expected kind {GENERIC} or {TENSORS}, got {kind}")


def _gives(base: bytes, delta: bytes, want: bytes) -> bool:
    try:
        return apply(base, delta, len(want)) == want
    except UpdateError:
        return False


def _mark(base: bytes) -> bytes:
    return hashlib.sha256(base).digest()[:8]
