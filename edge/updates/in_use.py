"""Which bundle decides, as a drive records it."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.message import DecodeError

from edge.samples import BundleInUse
from roadfuse.v1 import updates_pb2

MOST_BYTES: Final = 1 << 10
_ID: Final = re.compile(r"[0-9a-f]{64}")


def in_use_bytes(in_use: BundleInUse) -> bytes:
    """As a message."""
    message = updates_pb2.BundleInUse(bundle_id=in_use.bundle_id, previous_bundle_id=in_use.previous_id, why=in_use.why)
    return message.SerializeToString(deterministic=True)


def parse_in_use(payload: bytes) -> BundleInUse | None:
    """From a message; None where it is none of ours: the loop goes on with what it has."""
    try:
        message = updates_pb2.BundleInUse.FromString(payload)
    except DecodeError:
        return None
    if not _ID.fullmatch(message.bundle_id) or (
        message.previous_bundle_id and not _ID.fullmatch(message.previous_bundle_id)
    ):
        return None
    return BundleInUse(message.bundle_id, message.previous_bundle_id, message.why)
