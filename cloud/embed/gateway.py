"""Embed whatever comes: each modality to its encoder here or on another server, past what is known already.

An item is looked for in memory, among those under way, in Redis, on disk, and then encoded in a batch. Equal items
under way are computed once. What goes wrong is the answer of that item alone, and is not kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from cloud.embed import metrics
from cloud.embed.batching import Answer, Batcher, BatchLimits, encoded
from cloud.embed.cache import DAY_S, DiskCache, MemoryCache, digest_of, key_of
from cloud.embed.encoders import PREPROCESSING, Encoders
from cloud.embed.item import Item, Modality, Vector
from cloud.embed.redis_cache import RedisCache
from cloud.embed.refusals import malformed, unsupported
from cloud.embed.remote import Remote
from cloud.errors import CloudError, Refused

# Beyond memory: a sentence is encoded faster than a file of its vector is read, let alone written.
KEPT: Final[frozenset[Modality]] = frozenset({"image", "audio", "video", "motion", "lidar"})
# Vectors on their way to Redis and to the disk; where these are slower than the encoders the rest is not kept.
MAX_WRITES: Final = 1024
# A larger content is hashed in a thread: a clip of 32 MiB would hold up all other calls for 30 ms.
HASHED_HERE_BYTES: Final = 256 << 10
_HITS: Final = metrics.HITS.labels("memory", "text")
_MISSES: Final = metrics.MISSES.labels("text")
_SECONDS: Final = metrics.SECONDS.labels("text")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Of the caches and queues.

    Attributes:
        memory_bytes: 64 MiB hold the vectors of 50,000 sentences.
        disk: folder; None: no cache on disk.
        disk_bytes: of files.
        redis: URL of a cache that several servers share; None: there is none.
        age_s: a vector older than this is made again.
        item_bytes: of one content; a clip of 30 s with everything recorded is larger, and is for the worker.
        text: its queue and batches.
        media: those of each other modality: one after the other, since together they take as long (docs/embed.md).
    """

    memory_bytes: int = 64 << 20
    disk: Path | None = None
    disk_bytes: int = 1 << 30
    redis: str | None = None
    age_s: float = 30 * DAY_S
    item_bytes: int = 32 << 20
    text: BatchLimits = field(default_factory=BatchLimits)
    media: BatchLimits = field(default_factory=lambda: BatchLimits(batch_items=1, wait_s=0.0, queue_items=256))


class Gateway:
    """The one way to vectors for a server; belongs to the event loop that calls it first.

    Args:
        encoders: those in this process; None: of the reference bundle.
        remotes: modality -> encoder on another server, which goes before the one here.
        settings: of caches and queues.

    Raises:
        CloudError: there can't be a cache as the settings say.

    Attributes:
        space: the bundle whose embeddings the vectors compare with.
        models: modality -> SHA-256 of its encoder.
    """

    def __init__(
        self,
        encoders: Encoders | None = None,
        remotes: Mapping[Modality, Remote] | None = None,
        settings: GatewaySettings | None = None,
    ) -> None:
        self.encoders = encoders or Encoders()
        self.space = self.encoders.space
        self._remotes = dict(remotes or {})
        # What encodes elsewhere must be the very same, so its model is known here.
        known = self.encoders.towers.models
        self.models: dict[Modality, str] = {
            name: model for name, model in known.items() if name in self.encoders.models or name in self._remotes
        }
        self._settings = settings or GatewaySettings()
        self._memory = MemoryCache(self._settings.memory_bytes, self._settings.age_s)
        self._disk = (
            DiskCache(self._settings.disk, self._settings.disk_bytes, self._settings.age_s)
            if self._settings.disk is not None
            else None
        )
        self._redis = RedisCache(self._settings.redis, self._settings.age_s) if self._settings.redis else None
        self._disk_threads = ThreadPoolExecutor(2, thread_name_prefix="embed-disk")
        self._hash_threads = ThreadPoolExecutor(1, thread_name_prefix="embed-hash")
        self._threads: dict[Modality, ThreadPoolExecutor] = {}
        self._batchers: dict[Modality, Batcher] = {}
        self._flights: dict[bytes, asyncio.Task[Answer]] = {}
        self._writes: set[asyncio.Future[None]] = set()  # vectors on their way

    @classmethod
    def at(
        cls,
        addresses: Mapping[Modality, str],
        encoders: Encoders | None = None,
        settings: GatewaySettings | None = None,
    ) -> Gateway:
        """A gateway that sends some modalities to other servers.

        Args:
            addresses: modality -> HOST:PORT of a server of `cloud.embed.server`; it must encode into the same space.
        """
        servers = {address: Remote(address) for address in set(addresses.values())}
        return cls(encoders, {modality: servers[address] for modality, address in addresses.items()}, settings)

    async def embed(self, items: Sequence[Item]) -> list[Vector | CloudError]:
        """A vector or an error for each item, in order."""
        started = time.perf_counter()
        large = [item for item in items if HASHED_HERE_BYTES < len(item.content) <= self._settings.item_bytes]
        digests = {}
        if large:
            loop = asyncio.get_running_loop()
            hashed = [loop.run_in_executor(self._hash_threads, digest_of, item) for item in large]
            digests = dict(zip(map(id, large), await asyncio.gather(*hashed)))
        answers: list[Any] = [self._begin(item, digests.get(id(item))) for item in items]
        flights = {answer for answer in answers if isinstance(answer, asyncio.Task)}
        if flights:
            await asyncio.wait(flights)  # leaves them be when the caller goes away: others may wait for them too
        found: list[Vector | CloudError] = [
            answer.result() if isinstance(answer, asyncio.Task) else answer for answer in answers
        ]
        took_s = time.perf_counter() - started
        for item, answer in zip(items, found):
            if isinstance(answer, Vector):
                metrics.SECONDS.labels(answer.modality).observe(took_s)
            else:
                _count_error(item, answer)
        return found

    @property
    def is_text_here(self) -> bool:
        """Whether texts are encoded in this process."""
        return "text" in self.encoders.models and "text" not in self._remotes

    def texts(self, contents: Sequence[bytes]) -> list[Answer]:
        """Vectors or errors of texts, in order, by the thread that calls: for who has a queue of his own. Any may."""
        started = time.perf_counter()
        model = self.models["text"]
        items = [Item("text", content) for content in contents]
        keys = [key_of(item, self.space, model, PREPROCESSING) for item in items]
        known = {key: kept for key in keys if (kept := self._memory.get(key)) is not None}
        missing = {key: content for key, content in zip(keys, contents) if key not in known}
        if missing:
            _MISSES.inc(len(missing))
            found = dict(zip(missing, encoded("text", self.encoders.encode, list(missing.values()))))
            for key, answer in found.items():
                if isinstance(answer, Vector):
                    self._memory.put(key, answer)
        answers: list[Answer] = [known[key] if key in known else found[key] for key in keys]
        if known:
            _HITS.inc(len(known))
        took_s = time.perf_counter() - started
        for item, answer in zip(items, answers):
            if isinstance(answer, Vector):
                _SECONDS.observe(took_s)
            else:
                _count_error(item, answer)
        return answers

    async def close(self) -> None:
        """Answer what is under way, refuse what waits, let go of threads and connections."""
        for batcher in self._batchers.values():
            await batcher.close()
        if self._flights:
            await asyncio.wait(self._flights.values())
        if self._writes:
            await asyncio.wait(self._writes)
        if self._redis is not None:
            await self._redis.close()
        for remote in set(self._remotes.values()):
            await remote.close()
        for threads in (*self._threads.values(), self._disk_threads, self._hash_threads):
            threads.shutdown()

    def _begin(self, item: Item, digest: bytes | None) -> Answer | asyncio.Task[Answer]:
        modality = item.modality
        model = self.models.get(modality)
        if model is None:
            return unsupported(f"modality: expected one of {', '.join(self.models)}, got {str(modality)[:40]!r}")
        if len(item.content) > self._settings.item_bytes:
            return malformed(f"{modality}: expected at most {self._settings.item_bytes} bytes, got {len(item.content)}")
        key = key_of(item, self.space, model, PREPROCESSING, digest)
        kept = self._memory.get(key)
        if kept is not None:
            metrics.HITS.labels("memory", modality).inc()
            return kept
        flight = self._flights.get(key)
        if flight is not None:
            metrics.SHARED.labels(modality).inc()
            return flight
        flight = asyncio.create_task(self._fly(key, item))
        self._flights[key] = flight
        return flight

    async def _fly(self, key: bytes, item: Item) -> Answer:
        try:
            if item.modality in KEPT:
                kept = await self._find(key, item.modality)
                if kept is not None:
                    self._memory.put(key, kept)
                    return kept
            metrics.MISSES.labels(item.modality).inc()
            answer = await self._batcher(item.modality).submit(item.content)
            if isinstance(answer, Vector):
                self._memory.put(key, answer)
                if item.modality in KEPT:
                    self._keep_in_redis(key, answer)
                    self._keep_on_disk(key, answer)
            return answer
        finally:
            del self._flights[key]

    async def _find(self, key: bytes, modality: Modality) -> Vector | None:
        """What Redis or the disk keep; what only the disk did, Redis then does too."""
        kept = await self._redis.get(key) if self._redis is not None else None
        if kept is not None:
            metrics.HITS.labels("redis", modality).inc()
            return kept
        if self._disk is not None:
            kept = await asyncio.get_running_loop().run_in_executor(self._disk_threads, self._disk.get, key)
            if kept is not None:
                metrics.HITS.labels("disk", modality).inc()
                self._keep_in_redis(key, kept)
        return kept

    def _keep_in_redis(self, key: bytes, vector: Vector) -> None:
        if self._redis is not None and self._has_room("redis"):
            self._write(asyncio.create_task(self._redis.put(key, vector)))

    def _keep_on_disk(self, key: bytes, vector: Vector) -> None:
        if self._disk is not None and self._has_room("disk"):
            loop = asyncio.get_running_loop()
            self._write(loop.run_in_executor(self._disk_threads, self._disk.put, key, vector))

    def _has_room(self, level: str) -> bool:
        """Nobody waits for a cache; what it can't follow is not kept."""
        if len(self._writes) < MAX_WRITES:
            return True
        metrics.UNWRITTEN.labels(level).inc()
        return False

    def _write(self, writing: asyncio.Future[None]) -> None:
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)

    def _batcher(self, modality: Modality) -> Batcher:
        if modality not in self._batchers:
            remote = self._remotes.get(modality)
            limits = self._settings.text if modality == "text" else self._settings.media
            threads = None if remote else ThreadPoolExecutor(1, thread_name_prefix=f"embed-{modality}")
            if threads is not None:
                self._threads[modality] = threads

            async def encode(contents: Sequence[bytes]) -> list[Answer]:
                if remote is not None:
                    return await remote.encode(modality, contents, self.space, self.models[modality])
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(threads, self.encoders.encode, modality, contents)

            self._batchers[modality] = Batcher(modality, encode, limits)
        return self._batchers[modality]


def _count_error(item: Item, error: CloudError) -> None:
    status = error.status if isinstance(error, Refused) else grpc.StatusCode.INTERNAL
    known = status is not grpc.StatusCode.UNIMPLEMENTED  # else anybody could make up label values
    metrics.ERRORS.labels(item.modality if known else "other", status.name).inc()
