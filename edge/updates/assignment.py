"""What a vehicle is to do, once both repositories agreed on it and the answer was proven fresh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from roadfuse.v1 import updates_pb2


@dataclass(frozen=True, slots=True)
class TargetFile:
    """A file of a bundle, as signed."""

    name: str
    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """A release that both repositories agree on, for this hardware.

    Attributes:
        path: of its target: NAME/COUNTER/manifest.json.
        files: of the bundle, the manifest first.
    """

    path: str
    bundle: str
    counter: int
    hardware: tuple[str, ...]
    files: tuple[TargetFile, ...]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer to a check-in.

    Attributes:
        release: to go for; None: nothing is to be done.
        mode: roadfuse.v1.Mode: how far.
        rollout: whose it is.
        stop_number: of `stopped`; an older one than the last is void.
        stopped: bundle ids that nobody may run or begin to run.
        now_ns: UTC, signed by the director: the only clock that expiry is measured with.
        next_contact_s: when to call again.
    """

    release: Release | None
    mode: int
    rollout: str
    stop_number: int
    stopped: frozenset[str]
    now_ns: int
    next_contact_s: float


class Cloud(Protocol):
    """The way to the cloud; errors are OSError where trying again may help, else UpdateError."""

    def check_in(self, request: updates_pb2.CheckInRequest) -> updates_pb2.CheckInResponse:
        """Say what runs; hear what is to run."""

    def image_metadata(self, role: str, version: int) -> bytes:
        """Metadata of the image repository."""

    def delta(self, have: list[bytes], want: bytes) -> updates_pb2.DeltaResponse:
        """How to get a file with few bytes."""

    def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on, as they come."""
