"""Vectors in a Redis that several servers share, between their memories and their disks.

It is a help and never a need: each call is bounded in time, a Redis that fails or is slow is left alone for a while,
and whatever lies there is believed only with its checksum, under its key and within its age.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from cloud.embed import metrics
from cloud.embed.circuit import Circuit
from cloud.embed.entry import MAX_BYTES, packed, parsed
from cloud.embed.item import Vector
from cloud.errors import CloudError

Answer = TypeVar("Answer")
PREFIX: Final = b"roadfuse:embed:"
# A call that takes longer costs more than a picture's vector is worth.
CALL_S: Final = 0.1
# Calls at once, each with a connection of its own; others wait for as long as a call may take, and no longer.
LANES: Final = 16
_SKEW_S: Final = 60.0  # by which another server's clock may be ahead
_LEVEL: Final = "redis"


class RedisCache:
    """A cache behind a URL; belongs to the event loop that calls it first.

    Args:
        url: redis://, rediss:// or unix://; may hold a password, and is never shown.
        age_s: an entry older than this is no longer found.
        clock: Unix time, s.

    Raises:
        CloudError: the URL is none, or the package `redis` is not installed.
    """

    def __init__(self, url: str, age_s: float, clock: Callable[[], float] = time.time) -> None:
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError, ResponseError
        except ImportError:
            raise CloudError("a cache in Redis: expected the extra `redis`, got no such package") from None
        self._failures = (RedisError, OSError, TimeoutError)
        self._refusal = ResponseError
        try:
            self._client: Any = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        except (ValueError, RedisError):
            raise CloudError("a cache in Redis: expected redis://HOST:PORT/N, got another URL") from None
        self._age_s, self._clock = age_s, clock
        self._circuit = Circuit()
        self._lanes = asyncio.Semaphore(LANES)

    async def get(self, key: bytes) -> Vector | None:
        """What was kept under the key, if it still is and Redis answers in time."""
        name = PREFIX + key.hex().encode()
        content = await self._asked(lambda: self._client.getrange(name, 0, MAX_BYTES))
        if not content:
            return None
        entry = parsed(content, key)
        if entry is None:
            metrics.CORRUPT.labels(_LEVEL).inc()
            await self._asked(lambda: self._client.delete(name))
            return None
        made_s, vector = entry
        return vector if -_SKEW_S <= self._clock() - made_s <= self._age_s else None

    async def put(self, key: bytes, vector: Vector) -> None:
        """Keep a vector; what Redis does not take in time is counted."""
        name, content = PREFIX + key.hex().encode(), packed(key, vector, self._clock())
        if not await self._asked(lambda: self._client.set(name, content, px=max(int(self._age_s * 1e3), 1))):
            metrics.UNWRITTEN.labels(_LEVEL).inc()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _asked(self, call: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """Redis's answer; None where it is left alone, refuses, fails or is too slow."""
        try:
            async with asyncio.timeout(CALL_S):
                await self._lanes.acquire()
        except TimeoutError:
            metrics.UNANSWERED.inc()
            return None
        try:
            return await self._asked_now(call)
        finally:
            self._lanes.release()

    async def _asked_now(self, call: Callable[[], Awaitable[Answer]]) -> Answer | None:
        spell = self._circuit.enter()
        if spell is None:
            return None
        answer = None
        try:
            async with asyncio.timeout(CALL_S):
                answer = await call()
        except self._refusal:  # it answers: what it lacks is memory, or a right
            metrics.UNANSWERED.inc()
        except self._failures:
            metrics.UNANSWERED.inc()
            self._circuit.failed(spell)
            return None
        self._circuit.succeeded(spell)
        return answer
