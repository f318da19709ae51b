"""The Updates service: vehicles say what they run and how it fares, hear what to run, and fetch it."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.expression import cast

from cloud.calls import Context, Threads, answered
from cloud.errors import Refused
from cloud.identity import Callers
from cloud.limits import Limits
from cloud.objects import Objects
from cloud.releases import checkin, deltas
from cloud.releases.director import Order
from cloud.releases.rate import Places, Rate
from cloud.releases.releases import object_key
from cloud.releases.repositories import Repositories, Trust
from cloud.releases.stored import MOST_ROOTS, Stored
from cloud.tables import DELTAS, RELEASES
from roadfuse.v1 import updates_pb2, updates_pb2_grpc

CALL_S: Final = Limits().call_s
# Where nobody says when a vehicle should call again.
CONTACT_S: Final = 60.0
MOST_CONTACT_S: Final = 86_400.0
CHUNK_BYTES: Final = 256 << 10
# Read at once from a store that may be far away.
READ_BYTES: Final = 2 << 20
# A file takes this long at most; a vehicle on a poor link then goes on from where it was.
FETCH_S: Final = 3_600.0
DIGEST_BYTES: Final = 32
MOST_HAVE: Final = 256
# Of one vehicle: check-ins, metadata files, questions for deltas, files.
CHECK_INS: Final = (30, 1.0)
QUESTIONS: Final = (512, 32.0)
FETCHES: Final = (4, 128)
MOST_VERSION: Final = (1 << 63) - 1
_ROLE: Final = re.compile(r"root|snapshot|targets|timestamp|bin-[0-9a-f]")


class Contacts(Protocol):
    """Says when vehicles should call again, so that they do not all come at once."""

    def next_s(self, vehicle: str, now_s: float) -> float:
        """Seconds from `now_s` on, which is of a clock that goes on evenly."""


class EveryMinute:
    """The same for all vehicles."""

    def next_s(self, vehicle: str, now_s: float) -> float:
        """A minute."""
        return CONTACT_S


class Updates(updates_pb2_grpc.UpdatesServicer):
    """Answers update agents.

    Args:
        engine: the migrated catalogue.
        objects: where files of releases are.
        threads: for all that waits.
        limits: how long a write may wait.
        data: the cloud's folder, with the director's keys.
        contacts: when vehicles should call again; None: every minute.
    """

    def __init__(
        self,
        engine: Engine,
        objects: Objects,
        threads: Threads,
        limits: Limits,
        data: Path,
        contacts: Contacts | None = None,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._threads = threads
        self._limits = limits
        self._callers = Callers(engine)
        self._repositories = Repositories(engine, data)
        self._contacts: Contacts = contacts or EveryMinute()
        self._check_ins = Rate(*CHECK_INS)
        self._questions = Rate(*QUESTIONS)
        self._fetches = Places(*FETCHES)

    @answered(CALL_S)
    async def CheckIn(self, request: updates_pb2.CheckInRequest, context: Context) -> updates_pb2.CheckInResponse:
        """Keeps what a vehicle says; answers with what it is to do, signed for it and this call alone."""
        vehicle = await self._vehicle(context)
        self._check_ins.take(vehicle, time.monotonic())
        await self._trust()
        told = checkin.checked(request, vehicle, context.auth_context())
        plan = await self._threads.run(checkin.keep, self._engine, told)
        trust = await self._trust(0 if plan.release is None else plan.release.counter)
        contact_s = min(max(self._contacts.next_s(vehicle, time.monotonic()), 1.0), MOST_CONTACT_S)
        answer = trust.director.sign(
            Order(
                vehicle=vehicle,
                nonce=told.nonce,
                now=plan.now,
                version=plan.version,
                target=None if plan.release is None else plan.release.target(),
                mode=plan.mode,
                rollout=plan.rollout,
                stop_number=plan.stopped.number,
                stopped=plan.stopped.bundles,
                next_contact_s=contact_s,
            )
        )
        return updates_pb2.CheckInResponse(
            director_roots=_after(trust.director_roots, request.director_root_version),
            director_timestamp=answer.timestamp,
            director_snapshot=answer.snapshot,
            director_targets=answer.targets,
            image_roots=_after(trust.image_roots, request.image_root_version),
            image_timestamp=trust.image_timestamp,
            next_contact_s=contact_s,
        )

    @answered(CALL_S)
    async def ImageMetadata(
        self, request: updates_pb2.ImageMetadataRequest, context: Context
    ) -> updates_pb2.ImageMetadataResponse:
        """A version of a role of the image repository."""
        self._questions.take(await self._vehicle(context), time.monotonic())
        if not _ROLE.fullmatch(request.role) or not 1 <= request.version <= MOST_VERSION:
            raise _refused("snapshot, targets or bin-0 to bin-f, and a version", f"{request.role} {request.version}")
        content = await self._threads.run(self._repositories.image_file, request.role, request.version)
        if content is None:
            raise Refused(
                grpc.StatusCode.NOT_FOUND, f"expected a version of {request.role} there is, got {request.version}"
            )
        return updates_pb2.ImageMetadataResponse(content=content)

    @answered(CALL_S)
    async def Delta(self, request: updates_pb2.DeltaRequest, context: Context) -> updates_pb2.DeltaResponse:
        """The cheapest way from files on board to another one; empty where that is the whole file."""
        self._questions.take(await self._vehicle(context), time.monotonic())
        if len(request.have_sha256) > MOST_HAVE:
            raise _refused(f"at most {MOST_HAVE} files on board", len(request.have_sha256))
        for digest in (*request.have_sha256, request.want_sha256):
            _check_digest(digest)
        have = list(dict.fromkeys(request.have_sha256))
        found = await self._threads.run(self._cheapest, have, request.want_sha256)
        if found is None:
            return updates_pb2.DeltaResponse()
        base, delta, size = found
        return updates_pb2.DeltaResponse(base_sha256=base, delta_sha256=delta, delta_bytes=size)

    @answered(FETCH_S)
    async def Fetch(self, request: updates_pb2.FetchRequest, context: Context) -> None:
        """Streams a file of a release, or a delta."""
        vehicle = await self._vehicle(context)
        _check_digest(request.sha256)
        with self._fetches.taken(vehicle):
            length = await self._threads.run(self._length, request.sha256)
            if request.offset > length:
                raise _refused(f"an offset up to {length}", request.offset)
            key = object_key(request.sha256.hex())
            for start in range(request.offset, length, READ_BYTES):
                end = min(start + READ_BYTES, length)
                block = await self._threads.run(self._objects.get_range, key, start, end)
                if len(block) != end - start:
                    raise Refused(grpc.StatusCode.DATA_LOSS, f"{key}: expected {length} bytes, got fewer")
                await self._send(context, start, block)
                await self._vehicle(context)  # a revocation cuts off what is under way

    async def _send(self, context: Context, start: int, block: bytes) -> None:
        for at in range(0, len(block), CHUNK_BYTES):
            content = block[at : at + CHUNK_BYTES]
            chunk = updates_pb2.FetchChunk(offset=start + at, content=content, crc32=zlib.crc32(content))
            async with asyncio.timeout(self._limits.silence_s):
                await context.write(chunk)

    async def _trust(self, counter: int = 0) -> Trust:
        known = self._repositories.remembered(counter)
        return await self._threads.run(self._repositories.trust, counter) if known is None else known

    async def _vehicle(self, context: Context) -> str:
        auth = context.auth_context()
        vehicle = self._callers.remembered(auth)
        return await self._threads.run(self._callers.vehicle, auth) if vehicle is None else vehicle

    def _length(self, digest: bytes) -> int:
        """Of a file that a release or a delta has; nothing else among the objects is given away."""
        with self._engine.connect() as connection:
            released = select(RELEASES.c.files).where(
                RELEASES.c.revoked_at.is_(None), RELEASES.c.files.op("@>")(cast([{"sha256": digest.hex()}], JSONB))
            )
            files = connection.execute(released.limit(1)).scalar_one_or_none()
            if files is not None:
                return next(int(file["length"]) for file in files if file["sha256"] == digest.hex())
            size = connection.execute(
                select(DELTAS.c.bytes).where(DELTAS.c.delta_sha256 == digest).limit(1)
            ).scalar_one_or_none()
        if size is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"expected a file of a release that counts, got {digest.hex()}")
        return int(size)

    def _cheapest(self, have: list[bytes], want: bytes) -> tuple[bytes, bytes, int] | None:
        self._length(want)
        return deltas.cheapest(self._engine, have, want)


def _after(roots: tuple[Stored, ...], version: int) -> list[bytes]:
    """Roots that follow the one a vehicle has; all of them where it has the one that it came with."""
    return [root.content for root in roots if root.version > version][:MOST_ROOTS]


def _check_digest(digest: bytes) -> None:
    if len(digest) != DIGEST_BYTES:
        raise _refused(f"a SHA-256 of {DIGEST_BYTES} bytes", len(digest))


def _refused(expected: str, got: Any) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, f"expected {expected}, got {str(got)[:80]!r}")
