"""How an item that can't be embedded is refused: its own status, nobody else's."""

from __future__ import annotations

import grpc

from cloud.errors import Refused


def malformed(message: str) -> Refused:
    """The content is not what its modality says."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def unsupported(message: str) -> Refused:
    """Nothing here embeds this."""
    return Refused(grpc.StatusCode.UNIMPLEMENTED, message)


def overloaded(message: str) -> Refused:
    """More waits than may wait."""
    return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def unavailable(message: str) -> Refused:
    """An encoder elsewhere does not answer; trying again may help."""
    return Refused(grpc.StatusCode.UNAVAILABLE, message)
