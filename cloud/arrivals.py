"""Small clips, each in one call: those that arrive together share their waits for the disk and one transaction.

The order is that of every clip: its digest is what was told, the object is kept, the catalogue says so, then the call
is answered. While a few batches are under way the next one gathers, so that a lone clip waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from sqlalchemy import Engine, text

from cloud.calls import Threads
from cloud.catalogue import ARRIVED, RECEIVE
from cloud.errors import ObjectError, Refused
from cloud.objects import Objects, clip_key
from cloud.report import HELD
from cloud.staging import Key

# One waits for the disk while another computes.
LANES: Final = 2
BATCH: Final = 64
_TOLD: Final = text(
    f"SELECT s.vehicle, s.outbox, s.sequence, s.media, s.bytes, s.sha256, s.received_at FROM scenes s, {ARRIVED} "
    "WHERE (s.vehicle, s.outbox, s.sequence) = (arrived.vehicle, arrived.outbox, arrived.sequence)"
)


@dataclass(slots=True, eq=False)
class Arrival:
    """A whole clip, and who waits for it."""

    key: Key
    sha256: bytes
    content: bytes
    kept: asyncio.Future[None]


class Arrivals:
    """Keeps small clips, batch by batch.

    Args:
        engine: the migrated catalogue.
        objects: where clips are kept.
        threads: for all that waits.
    """

    def __init__(self, engine: Engine, objects: Objects, threads: Threads) -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._objects = objects
        self._threads = threads
        self._waiting: list[Arrival] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def keep(self, key: Key, sha256: bytes, content: bytes) -> None:
        """Keep a clip: on return it is durable and the catalogue says so. May be repeated.

        Raises:
            Refused: the scene was never told of, its clip is gone, or this is another.
        """
        arrival = Arrival(key, sha256, content, asyncio.get_running_loop().create_future())
        self._waiting.append(arrival)
        self._set_out()
        await arrival.kept

    def _set_out(self) -> None:
        while self._waiting and len(self._under_way) < LANES:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            task = asyncio.create_task(self._carry(batch))
            self._under_way.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._set_out()

    async def _carry(self, batch: list[Arrival]) -> None:
        outcomes: Sequence[Exception | None]
        try:
            outcomes = await self._threads.run(self._keep, batch)
        except Exception as error:  # each of their calls is told
            outcomes = [error] * len(batch)
        for arrival, outcome in zip(batch, outcomes):
            if arrival.kept.done():  # whoever waited went away
                continue
            if outcome is None:
                arrival.kept.set_result(None)
            else:
                arrival.kept.set_exception(outcome)

    def _keep(self, batch: list[Arrival]) -> list[Exception | None]:
        """In a thread: what became of each."""
        told = self._told(batch)
        outcomes: list[Exception | None] = [_unfit(arrival, told.get(arrival.key)) for arrival in batch]
        fresh = [
            arrival
            for arrival, outcome in zip(batch, outcomes)
            if outcome is None and told[arrival.key].received_at is None
        ]
        if not fresh:
            return outcomes
        self._objects.put_contents([(clip_key(*arrival.key, arrival.sha256), arrival.content) for arrival in fresh])
        with self._single.connect() as connection:
            received = connection.execute(RECEIVE, _columns(fresh)).rowcount
        if received < len(fresh):  # by another call, or the clip was made anew meanwhile
            told = self._told(batch)
            outcomes = [outcome or _unfit(arrival, told.get(arrival.key)) for arrival, outcome in zip(batch, outcomes)]
            self._let_go([arrival for arrival in fresh if bytes(told[arrival.key].sha256) != arrival.sha256])
        return outcomes

    def _let_go(self, outdated: list[Arrival]) -> None:
        """Nothing of a clip stays that its vehicle made anew while it was kept."""
        for arrival in outdated:
            with contextlib.suppress(ObjectError):  # a leftover that nothing names
                self._objects.delete(clip_key(*arrival.key, arrival.sha256))

    def _told(self, batch: list[Arrival]) -> dict[Key, Any]:
        with self._single.connect() as connection:
            rows = connection.execute(_TOLD, _columns(batch)).all()
        return {(row.vehicle, bytes(row.outbox), row.sequence): row for row in rows}


def _columns(batch: list[Arrival]) -> dict[str, list[Any]]:
    ordered = sorted(batch, key=lambda arrival: arrival.key)  # two batches meet the same scenes in the same order
    return {
        "vehicles": [arrival.key[0] for arrival in ordered],
        "outboxes": [arrival.key[1] for arrival in ordered],
        "sequences": [arrival.key[2] for arrival in ordered],
        "digests": [arrival.sha256 for arrival in ordered],
        "keys": [clip_key(*arrival.key, arrival.sha256) for arrival in ordered],
    }


def _unfit(arrival: Arrival, told: Any) -> Refused | None:
    """Why a clip is not taken, by what the catalogue says."""
    sequence = arrival.key[2]
    if told is None:
        return Refused(grpc.StatusCode.NOT_FOUND, f"expected a scene that was told of, got {sequence}")
    digest, size = bytes(told.sha256), len(arrival.content)
    if (told.bytes, digest) != (size, arrival.sha256):
        expected = f"{told.bytes} bytes, SHA-256 {digest.hex()}, as it was told of"
        message = f"scene {sequence}: expected {expected}, got {size}, {arrival.sha256[:32].hex()}"
        return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
    if told.received_at is not None:
        return None
    if told.media != HELD:
        return Refused(grpc.StatusCode.FAILED_PRECONDITION, f"scene {sequence}: its clip was told to be gone")
    got = hashlib.sha256(arrival.content).digest()
    if got != digest:
        return Refused(grpc.StatusCode.DATA_LOSS, f"scene {sequence}: expected SHA-256 {digest.hex()}, got {got.hex()}")
    return None
