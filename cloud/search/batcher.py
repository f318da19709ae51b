"""Queries that wait are answered together, by one thread: while it works others gather, and none waits for company."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from cloud.errors import CloudError
from cloud.search import metrics

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
_LOG: Final = logging.getLogger(__name__)
# More at once would save little, and who came first would wait for all.
TOGETHER: Final = 16
# Beyond, nobody would wait for the answer.
WAITING: Final = 4_096


class Batcher(Generic[Asked, Answered]):
    """A thread that answers.

    Args:
        answer: several at once; an error is the answer of its question alone.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answered | Exception]]) -> None:
        self._answer = answer
        self._waiting: queue.SimpleQueue[tuple[Asked, asyncio.Future[Answered]] | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def ask(self, asked: Asked) -> Answered:
        """The answer. Who goes away before it is his turn costs nothing.

        Raises:
            CloudError: too many wait already.
        """
        self._check(1)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.put((asked, future))
        return await future  # which is cancelled with the caller

    async def ask_all(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """Answers or errors, in order.

        Raises:
            CloudError: too many wait already.
        """
        self._check(len(asked))
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answered]] = [loop.create_future() for _ in asked]
        for pair in zip(asked, futures, strict=True):
            self._waiting.put(pair)
        try:
            return list(await asyncio.gather(*futures, return_exceptions=True))  # type: ignore[arg-type]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the thread; whoever waits is let go."""
        self._is_closed = True
        self._waiting.put(None)
        self._thread.join()

    def _check(self, more: int) -> None:
        if self._is_closed or self._waiting.qsize() + more > WAITING:
            raise CloudError("search has more to do than it can; ask again in a while")

    def _work(self) -> None:
        while not self._is_closed:
            some = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(some) < TOGETHER:
                    some.append(self._waiting.get_nowait())
            wanted = [one for one in some if one is not None and not one[1].cancelled()]
            if self._is_closed or not wanted:
                continue
            metrics.TOGETHER.observe(len(wanted))
            try:
                answers: Sequence[Answered | Exception] = self._answer([asked for asked, _ in wanted])
            except Exception as error:
                _LOG.exception("search_failed queries=%d", len(wanted))
                answers = [error] * len(wanted)
            _deliver([future for _, future in wanted], answers)


def _deliver(futures: Sequence[asyncio.Future[Answered]], answers: Sequence[Answered | Exception]) -> None:
    """Each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Answered], Answered | Exception]]] = {}
    for future, answer in zip(futures, answers, strict=True):
        by_loop.setdefault(future.get_loop(), []).append((future, answer))
    for loop, pairs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set, pairs)
        except RuntimeError:  # closed meanwhile: nobody waits there
            continue


def _set(pairs: Sequence[tuple[asyncio.Future[Answered], Answered | Exception]]) -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
