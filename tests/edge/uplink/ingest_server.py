"""A cloud that keeps everything in memory and can be told to fail: the other end of the wire, over a real socket."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from roadfuse.v1 import campaign_pb2, ingest_pb2_grpc
from roadfuse.v1 import ingest_pb2 as wire

Key = tuple[bytes, int]


@dataclass
class Cloud(ingest_pb2_grpc.IngestServicer):
    """Servicer and what it has. `fail(call)` may raise or abort; `cut_after` bytes an upload breaks off."""

    scenes: dict[Key, wire.SceneSummary] = field(default_factory=dict)
    evicted: dict[Key, str] = field(default_factory=dict)
    staged: dict[Key, bytearray] = field(default_factory=dict)
    promised: dict[Key, wire.BeginRequest] = field(default_factory=dict)
    clips: dict[Key, bytes] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=list)
    failures: dict[str, list[grpc.StatusCode]] = field(default_factory=dict)  # by call, the next ones
    unheard: set[int] = field(default_factory=set)  # scenes whose report is refused
    asks: list[campaign_pb2.Ask] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    reports: int = 0
    cut_after: int | None = None
    answers_lost: int = 0  # of Complete: committed, and never heard of
    takes_whole: bool = False  # clips in one call; a cloud of an earlier version does not
    whole: int = 0
    received_bytes: int = 0
    given: int = 0

    def Report(self, request: wire.ReportRequest, context: Any) -> wire.ReportResponse:
        self._fail("Report", context)
        if self.unheard & {scene.sequence for scene in request.scenes}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a scene makes no sense")
        self.given = max(self.given, request.last_sequence)
        for scene in request.scenes:
            self.scenes[request.outbox, scene.sequence] = scene
        for eviction in request.evictions:
            self.evicted[request.outbox, eviction.sequence] = eviction.reason
        self.answers |= {answer.id: answer.answer for answer in request.answers}
        self.reports += 1
        return wire.ReportResponse(wanted=self.wanted, asks=self.asks)

    def Begin(self, request: wire.BeginRequest, context: Any) -> wire.BeginResponse:
        self._fail("Begin", context)
        key = (request.outbox, request.sequence)
        if key in self.clips:
            return wire.BeginResponse(durable_offset=request.bytes, is_complete=True)
        self.promised[key] = request
        return wire.BeginResponse(durable_offset=len(self.staged.setdefault(key, bytearray())))

    def Append(self, chunks: Iterator[wire.Chunk], context: Any) -> Iterator[wire.AppendResponse]:
        self._fail("Append", context)
        staged: bytearray | None = None
        for chunk in chunks:
            if staged is None:
                staged = self.staged[chunk.outbox, chunk.sequence]
            self.received_bytes += len(chunk.content)
            if chunk.offset != len(staged) or zlib.crc32(chunk.content) != chunk.crc32:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"expected offset {len(staged)}, got {chunk.offset}")
            if self.cut_after is not None and len(staged) + len(chunk.content) > self.cut_after:
                self.cut_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "the network was cut")
            staged += chunk.content
            yield wire.AppendResponse(durable_offset=len(staged))

    def Complete(self, request: wire.CompleteRequest, context: Any) -> wire.CompleteResponse:
        self._fail("Complete", context)
        key = (request.outbox, request.sequence)
        if key not in self.clips:
            content = bytes(self.staged[key])
            if hashlib.sha256(content).digest() != self.promised[key].sha256:
                self.staged.pop(key)
                context.abort(grpc.StatusCode.DATA_LOSS, "the digest is another")
            self.clips[key] = content
        if self.answers_lost:
            self.answers_lost -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return wire.CompleteResponse()

    def Put(self, request: wire.PutRequest, context: Any) -> wire.PutResponse:
        if not self.takes_whole:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such call")
        self._fail("Put", context)
        if hashlib.sha256(request.content).digest() != request.sha256:
            context.abort(grpc.StatusCode.DATA_LOSS, "the digest is another")
        self.clips[request.outbox, request.sequence] = request.content
        self.received_bytes += len(request.content)
        self.whole += 1
        return wire.PutResponse()

    def Account(self, request: wire.AccountRequest, context: Any) -> wire.AccountResponse:
        self._fail("Account", context)
        return wire.AccountResponse(vehicle="test", outboxes=[wire.OutboxAccount(given=self.given)])

    def _fail(self, call: str, context: Any) -> None:
        if self.failures.get(call):
            context.abort(self.failures[call].pop(0), f"{call} fails\nas it was told to")


def serve(cloud: Cloud) -> tuple[grpc.Server, str]:
    """A running server and its address."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    ingest_pb2_grpc.add_IngestServicer_to_server(cloud, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
