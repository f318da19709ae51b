"""The way to the cloud over gRPC. Calls are bounded in time and bytes; what may pass is OSError, else UpdateError."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import grpc

from edge.errors import UpdateError
from edge.uplink.client import said
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2_grpc import UpdatesStub

_CALL_S: Final = 30.0
# Without a chunk: a call that is silent for so long is cut off. What drips is the fetcher's to judge.
_SILENT_S: Final = 60.0
# A file comes in one call for as long as it takes at the least rate; then the next try goes on.
_FETCH_S: Final = 3600.0
# Statuses that time mends; all others are a word about what was asked.
_PASSING: Final = frozenset({
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED, grpc.StatusCode.DATA_LOSS,
})  # fmt: skip


class GrpcCloud:
    """A cloud (edge/updates/assignment.Cloud) at the other end of a channel, which is its to close.

    Args:
        channel: by which the cloud knows the vehicle (edge/uplink/identity.channel).
    """

    def __init__(
        self, channel: grpc.Channel, call_s: float = _CALL_S, silent_s: float = _SILENT_S, fetch_s: float = _FETCH_S
    ) -> None:
        self._channel, self._stub = channel, UpdatesStub(channel)
        self._call_s, self._silent_s, self._fetch_s = call_s, silent_s, fetch_s

    def close(self) -> None:
        """End all calls."""
        self._channel.close()

    def __enter__(self) -> GrpcCloud:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check_in(self, request: updates_pb2.CheckInRequest) -> updates_pb2.CheckInResponse:
        """Say what runs; hear what is to run.

        Raises:
            UpdateError: the cloud refuses.
            OSError: it can't be reached just now.
        """
        with _errors("check-in"):
            response: updates_pb2.CheckInResponse = self._stub.CheckIn(request, timeout=self._call_s)
        return response

    def image_metadata(self, role: str, version: int) -> bytes:
        """Metadata of the image repository.

        Raises:
            UpdateError: the cloud refuses.
            OSError: it can't be reached just now.
        """
        request = updates_pb2.ImageMetadataRequest(role=role, version=version)
        with _errors(f"image {role}"):
            content: bytes = self._stub.ImageMetadata(request, timeout=self._call_s).content
        return content

    def delta(self, have: list[bytes], want: bytes) -> updates_pb2.DeltaResponse:
        """How to get a file with few bytes.

        Raises:
            UpdateError: the cloud refuses.
            OSError: it can't be reached just now.
        """
        request = updates_pb2.DeltaRequest(have_sha256=have, want_sha256=want)
        with _errors("delta"):
            response: updates_pb2.DeltaResponse = self._stub.Delta(request, timeout=self._call_s)
        return response

    def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset on, as they come.

        Raises:
            UpdateError: the cloud refuses.
            OSError: it can't be reached just now, went silent, or sent what was damaged on the way.
        """
        request = updates_pb2.FetchRequest(sha256=sha256, offset=offset)
        what = f"file {sha256.hex()[:12]}"
        call = self._stub.Fetch(request, timeout=self._fetch_s)
        silence = _Silence(call, self._silent_s)
        try:
            with _errors(what, silence):
                for chunk in call:
                    silence.heard()
                    if chunk.offset != offset or zlib.crc32(chunk.content) != chunk.crc32:
                        raise ConnectionError(f"{what}: expected a whole chunk from byte {offset} on, got another")
                    offset += len(chunk.content)
                    yield chunk.content
                    silence.heard()  # what the reader did with it is not the cloud's silence
        finally:
            silence.end()
            call.cancel()


class _Silence:
    """Cuts a call off that brings nothing for too long."""

    def __init__(self, call: Any, most_s: float) -> None:
        self._call, self._most_s = call, most_s
        self._is_heard = threading.Event()
        self._is_over = False
        self.was_too_long = False
        self._thread = threading.Thread(target=self._watch, name="fetch-silence", daemon=True)
        self._thread.start()

    def heard(self) -> None:
        """Something came."""
        self._is_heard.set()

    def end(self) -> None:
        """The call is over."""
        self._is_over = True
        self._is_heard.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._is_heard.wait(self._most_s):
            self._is_heard.clear()
            if self._is_over:
                return
        self.was_too_long = True
        self._call.cancel()


@contextmanager
def _errors(what: str, silence: _Silence | None = None) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        status: Any = error
        if silence is not None and silence.was_too_long:
            raise TimeoutError(f"{what}: expected bytes from the cloud, got none for too long") from None
        if status.code() in _PASSING:
            raise ConnectionError(f"{what}: {said(error)}") from None
        raise UpdateError(f"{what}: the cloud refuses: {said(error)}") from None
