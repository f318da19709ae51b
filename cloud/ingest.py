"""The Ingest service: scenes are told of, their clips follow, and the vehicle may ask what is here.

Nothing is answered before it is committed: a report when its transaction is, an offset when its bytes are on disk, a
completed clip when the object is kept and the catalogue says so, in this order. Each call may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from sqlalchemy import Engine

from cloud.arrivals import Arrivals
from cloud.calls import Context, Threads, answered, answered_stream, parsed
from cloud.campaigns.delivery import Delivery
from cloud.catalogue import Account, Catalogue
from cloud.certificates import Authority
from cloud.errors import Refused
from cloud.identity import Callers
from cloud.limits import Limits
from cloud.objects import Objects, clip_key
from cloud.renewal import renew
from cloud.report import HELD, checked, checked_outbox, checked_sequence
from cloud.staging import Key, Staging, Upload
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

CALL_S: Final = Limits().call_s


class Ingest(ingest_pb2_grpc.IngestServicer):
    """Takes scenes from vehicles.

    Args:
        engine: the migrated catalogue.
        objects: where clips end up.
        staging: where they are until they are whole.
        threads: for all that waits.
        limits: what one vehicle may ask.
        authority: signs certificates that follow others.
    """

    def __init__(
        self,
        engine: Engine,
        objects: Objects,
        staging: Staging,
        threads: Threads,
        limits: Limits,
        authority: Authority,
    ) -> None:
        self._engine = engine
        self._authority = authority
        self._callers = Callers(engine)
        self._catalogue = Catalogue(engine, limits)
        self._delivery = Delivery(engine)
        self._objects = objects
        self._arrivals = Arrivals(engine, objects, threads)
        self._staging = staging
        self._threads = threads
        self._limits = limits

    @answered(CALL_S)
    async def Report(self, request: ingest_pb2.ReportRequest, context: Context) -> ingest_pb2.ReportResponse:
        """Tells of scenes and of clips that are gone."""
        vehicle = await self._vehicle(context)
        told = checked(request, self._limits)
        wanted, went = await self._threads.run(self._catalogue.report, vehicle, told)
        for sequence in went:
            await self._give_up((vehicle, told.outbox, sequence))
        response = ingest_pb2.ReportResponse(wanted=wanted)
        wishes = self._delivery.remembered()
        if wishes is None:
            wishes = await self._threads.run(self._delivery.look)
        wishes.add_to(response, vehicle, told.probes_digest, told.answers)
        return response

    @answered(CALL_S)
    async def Begin(self, request: ingest_pb2.BeginRequest, context: Context) -> ingest_pb2.BeginResponse:
        """Opens an upload, or takes up one that was cut off; whoever appended before is sent away."""
        key = await self._key(context, request.outbox, request.sequence)
        clip = await self._threads.run(self._catalogue.clip, *key)
        digest: bytes = request.sha256
        if (clip.size_bytes, clip.sha256) != (request.bytes, digest):
            told = f"{clip.size_bytes} bytes, SHA-256 {clip.sha256.hex()}, as it was told of"
            got = f"{request.bytes}, {digest[:32].hex()}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"scene {request.sequence}: expected {told}, got {got}")
        if clip.is_received:
            await self._give_up(key)
            return ingest_pb2.BeginResponse(durable_offset=clip.size_bytes, is_complete=True)
        if clip.media != HELD:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, f"scene {request.sequence}: its clip was told to be gone"
            )
        if clip.size_bytes > self._limits.clip_bytes:
            most = self._limits.clip_bytes
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"scene {request.sequence}: expected a clip of at most {most} bytes, got {clip.size_bytes}",
            )
        upload = self._staging.open(key, clip.size_bytes)
        async with upload.lock:
            upload.owner, upload.told_sha256 = None, clip.sha256
            if upload.offset > clip.size_bytes:
                await self._threads.run(upload.drop)
            durable = await self._threads.run(upload.sync) if upload.offset else 0
        return ingest_pb2.BeginResponse(durable_offset=durable)

    @answered_stream
    async def Append(self, requests: Any, context: Context) -> AsyncIterator[ingest_pb2.AppendResponse]:
        """Appends chunks in order; answers as they become durable."""
        upload: Upload | None = None
        key: Key | None = None
        me = object()
        answered_offset = 0
        chunks = aiter(requests)
        while (chunk := await self._next(chunks)) is not None:
            vehicle = await self._vehicle(context)  # a revocation cuts off what is under way
            if upload is None or key is None:
                key = vehicle, checked_outbox(chunk.outbox), checked_sequence(chunk.sequence)
                upload = self._begun(key)
                upload.owner, answered_offset = me, upload.offset
            elif chunk.outbox and (chunk.outbox, chunk.sequence) != key[1:]:
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "expected chunks of one scene in a call, got two")
            self._check(chunk)
            async with upload.lock:
                _check_place(upload, chunk, me)
                end = upload.offset + len(chunk.content)
                durable = end == upload.size or end - answered_offset >= self._limits.sync_bytes
                await self._threads.run(upload.append, chunk.content, chunk.crc32, durable=durable)
            if durable:
                answered_offset = end
                yield ingest_pb2.AppendResponse(durable_offset=end)
        if upload is not None and upload.offset > answered_offset:
            async with upload.lock:
                if upload.owner is not me:
                    raise _taken_over()
                durable_offset = await self._threads.run(upload.sync)
            yield ingest_pb2.AppendResponse(durable_offset=durable_offset)

    @answered(CALL_S)
    async def Complete(self, request: ingest_pb2.CompleteRequest, context: Context) -> ingest_pb2.CompleteResponse:
        """Checks the digest and commits."""
        key = await self._key(context, request.outbox, request.sequence)
        upload = self._staging.find(key)
        if upload is not None:
            async with upload.lock:
                if self._staging.find(key) is upload:  # not completed or given up while this call waited
                    await self._threads.run(self._keep, key, upload)
                    return ingest_pb2.CompleteResponse()
        clip = await self._threads.run(self._catalogue.clip, *key)
        if not clip.is_received:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"scene {request.sequence}: expected Begin first")
        return ingest_pb2.CompleteResponse()

    @answered(CALL_S)
    async def Put(self, request: ingest_pb2.PutRequest, context: Context) -> ingest_pb2.PutResponse:
        """Takes a small clip whole, checks the digest and commits."""
        key = await self._key(context, request.outbox, request.sequence)
        if len(request.content) > self._limits.put_bytes:
            most, got = self._limits.put_bytes, len(request.content)
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"scene {request.sequence}: expected at most {most} bytes in one call, got {got}",
            )
        await self._arrivals.keep(key, request.sha256, request.content)
        await self._give_up(key)  # an upload of it that was begun
        return ingest_pb2.PutResponse()

    @answered(CALL_S)
    async def Account(self, request: ingest_pb2.AccountRequest, context: Context) -> ingest_pb2.AccountResponse:
        """What the cloud has of the caller's scenes."""
        vehicle = await self._vehicle(context)
        accounts = await self._threads.run(self._catalogue.accounts, vehicle)
        return ingest_pb2.AccountResponse(vehicle=vehicle, outboxes=[_message(account) for account in accounts])

    @answered(CALL_S)
    async def Renew(self, request: ingest_pb2.RenewRequest, context: Context) -> ingest_pb2.RenewResponse:
        """Gives the caller a certificate that lasts longer; committed when answered."""
        vehicle = await self._vehicle(context)
        certificate = await self._threads.run(self._renew, vehicle, request.csr)
        return ingest_pb2.RenewResponse(certificate=certificate, chain=self._authority.pem)

    def _renew(self, vehicle: str, csr: bytes) -> bytes:
        with self._engine.begin() as connection:
            return renew(connection, self._authority, vehicle, csr)

    def _keep(self, key: Key, upload: Upload) -> None:
        """In a thread: the object first, then the catalogue, then the staged bytes go; a kill in between repeats."""
        told = upload.told_sha256
        if told is None:  # begun before this server started
            clip = self._catalogue.clip(*key)
            if clip.is_received:
                self._staging.close(key)
                return
            upload.size, told = clip.size_bytes, clip.sha256
        _check_whole(upload.size, upload.offset)
        digest = upload.sha256()
        if digest != told:
            self._staging.close(key)
            raise Refused(
                grpc.StatusCode.DATA_LOSS,
                f"scene {key[2]}: expected SHA-256 {told.hex()}, got {digest.hex()}; its upload starts over",
            )
        upload.sync()
        object_key = clip_key(*key, digest)
        self._objects.put(object_key, upload.path)
        is_new = self._catalogue.receive(*key, digest, object_key)
        self._staging.close(key)
        if not is_new and self._catalogue.clip(*key).sha256 != digest:
            self._objects.delete(object_key)
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, f"scene {key[2]}: its clip was made anew meanwhile: Begin first"
            )

    async def _vehicle(self, context: Context) -> str:
        auth = context.auth_context()
        vehicle = self._callers.remembered(auth)
        return await self._threads.run(self._callers.vehicle, auth) if vehicle is None else vehicle

    async def _key(self, context: Context, outbox: bytes, sequence: int) -> Key:
        return await self._vehicle(context), checked_outbox(outbox), checked_sequence(sequence)

    async def _next(self, chunks: AsyncIterator[Any]) -> Any:
        async with asyncio.timeout(self._limits.silence_s):
            chunk = await anext(chunks, None)
        return None if chunk is None else parsed(chunk)

    async def _give_up(self, key: Key) -> None:
        upload = self._staging.find(key)
        if upload is not None:
            async with upload.lock:
                await self._threads.run(self._staging.close, key)

    def _begun(self, key: Key) -> Upload:
        upload = self._staging.find(key)
        if upload is None or upload.told_sha256 is None:  # none, or of a former server
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"scene {key[2]}: expected Begin first")
        return upload

    def _check(self, chunk: ingest_pb2.Chunk) -> None:
        size = len(chunk.content)
        if not 1 <= size <= self._limits.chunk_bytes:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"expected a chunk of 1 to {self._limits.chunk_bytes} bytes, got {size}",
            )


def _check_place(upload: Upload, chunk: ingest_pb2.Chunk, me: object) -> None:
    if upload.owner is not me:
        raise _taken_over()
    if chunk.offset != upload.offset:
        raise Refused(
            grpc.StatusCode.FAILED_PRECONDITION, f"expected a chunk at offset {upload.offset}, got {chunk.offset}"
        )
    end = chunk.offset + len(chunk.content)
    if end > upload.size:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"expected at most {upload.size} bytes, got {end}")


def _check_whole(size: int, got: int) -> None:
    if got != size:
        message = f"expected {size} bytes, got {got}: Begin says from where"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, message)


def _taken_over() -> Refused:
    return Refused(grpc.StatusCode.ABORTED, "another call took this upload over")


def _message(account: Account) -> ingest_pb2.OutboxAccount:
    return ingest_pb2.OutboxAccount(
        outbox=account.outbox,
        given=account.given,
        received=account.received,
        evicted=account.evicted,
        lost=account.lost,
        on_board=account.on_board,
        missing=account.missing,
        missing_sequences=account.missing_sequences,
    )
