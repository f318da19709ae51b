"""Dynamic batching: what comes within a moment goes through an encoder together.

Items wait in a bounded queue; what finds it full is refused at once. A batch leaves when it is full, or when its first
item has waited long enough; while one is under way the next one fills.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cloud.embed import metrics
from cloud.embed.item import Modality, Vector
from cloud.embed.refusals import overloaded, unavailable
from cloud.errors import CloudError, ModelError

Answer: TypeAlias = Vector | CloudError
Encode: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Answer]]]
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds on one encoder's queue and batches."""

    # Text goes through the tower one by one; a batch saves turns of the event loop (docs/embed.md).
    batch_items: int = 32
    # What a message to another server may carry.
    batch_bytes: int = 32 << 20
    # A sentence takes 0.2 to 0.3 ms: to wait longer than a few of them would cost more than it saves.
    wait_s: float = 0.001
    # A second's worth of sentences; who comes later would time out in the queue.
    queue_items: int = 2048
    # Pictures and clips are kept while they wait.
    queue_bytes: int = 256 << 20


class Batcher:
    """One encoder's queue; belongs to the event loop in which it is made.

    Args:
        name: of the modality, for messages and metrics.
        encode: gives an answer per content, in order. What it raises is tried again item by item, so that an error
            stays with the item that causes it.
    """

    def __init__(self, name: str, encode: Encode, limits: BatchLimits | None = None) -> None:
        self._name = name
        self._encode = encode
        self._limits = limits or BatchLimits()
        self._waiting: deque[tuple[bytes, asyncio.Future[Answer], float]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._depth = metrics.DEPTH.labels(name)
        self._batches = metrics.BATCHES.labels(name)
        self._sizes = metrics.BATCH_ITEMS.labels(name)

    async def submit(self, content: bytes) -> Answer:
        """The answer to one content; an error of the queue is an answer too."""
        limits = self._limits
        if self._closed:
            return unavailable(f"{self._name}: the server is closing; repeat the call elsewhere")
        if len(self._waiting) >= limits.queue_items or self._bytes + len(content) > limits.queue_bytes:
            return overloaded(f"{self._name}: expected at most {limits.queue_items} items that wait, got one more")
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((content, future, time.monotonic()))
        self._bytes += len(content)
        self._depth.inc()
        self._arrived.set()
        return await future

    async def close(self) -> None:
        """Answer what is under way, refuse what waits."""
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while True:
            while not self._waiting and not self._closed:
                self._arrived.clear()
                await self._arrived.wait()
            if self._closed:
                break
            await self._fill()
            batch = self._take()
            answers = await self._answers([content for content, _ in batch])
            for (_, future), answer in zip(batch, answers):
                if not future.done():
                    future.set_result(answer)
        for _, future in self._take_all():
            if not future.done():
                future.set_result(unavailable(f"{self._name}: the server is closing; repeat the call elsewhere"))

    async def _fill(self) -> None:
        """Wait until the batch is full or its first item has waited long enough."""
        until = self._waiting[0][2] + self._limits.wait_s
        while len(self._waiting) < self._limits.batch_items and not self._closed:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left_s)

    def _take(self) -> list[tuple[bytes, asyncio.Future[Answer]]]:
        taken: list[tuple[bytes, asyncio.Future[Answer]]] = []
        size = 0
        while self._waiting and len(taken) < self._limits.batch_items:
            content, future, _ = self._waiting[0]
            if taken and size + len(content) > self._limits.batch_bytes:
                break
            self._waiting.popleft()
            self._bytes -= len(content)
            size += len(content)
            taken.append((content, future))
        self._depth.dec(len(taken))
        return taken

    def _take_all(self) -> list[tuple[bytes, asyncio.Future[Answer]]]:
        taken = [(content, future) for content, future, _ in self._waiting]
        self._depth.dec(len(taken))
        self._waiting.clear()
        self._bytes = 0
        return taken

    async def _answers(self, contents: list[bytes]) -> list[Answer]:
        self._batches.inc()
        self._sizes.observe(len(contents))
        try:
            answers = await self._encode(contents)
            if len(answers) == len(contents):
                return answers
            raise ModelError(f"expected {len(contents)} answers, got {len(answers)}")
        except Exception as error:  # an encoder may fail in any way; the queue goes on
            if len(contents) > 1:
                return [answer for content in contents for answer in await self._answers([content])]
            return [_failed(self._name, error, contents[0])]


def encoded(
    name: Modality, encode: Callable[[Modality, Sequence[bytes]], list[Answer]], contents: list[bytes]
) -> list[Answer]:
    """Answers to contents by the thread that calls; what fails whole is tried one by one."""
    metrics.BATCHES.labels(name).inc()
    metrics.BATCH_ITEMS.labels(name).observe(len(contents))
    try:
        answers = encode(name, contents)
        if len(answers) == len(contents):
            return answers
        raise ModelError(f"expected {len(contents)} answers, got {len(answers)}")
    except Exception as error:
        if len(contents) > 1:
            return [answer for content in contents for answer in encoded(name, encode, [content])]
        return [_failed(name, error, contents[0])]


def _failed(name: str, error: Exception, content: bytes) -> CloudError:
    if isinstance(error, CloudError):
        return error
    _LOG.error("encoder_failed modality=%s bytes=%d", name, len(content), exc_info=error)
    return ModelError(f"{name}: the encoder failed on this; the server's log says why")
