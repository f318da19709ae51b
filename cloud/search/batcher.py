"""Queries that came together are answered together, by the event loop itself: none is handed to a thread and back.

Another thread would have to share the interpreter with the calls: two that take it from each other took a fifth more of
a core, and twice the latency (docs/decisions/0018). What more cores are for is more processes. Who comes while some are
answered waits for his turn, which is at most TOGETHER queries away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
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
    """Answers in turns of an event loop, to which it belongs while somebody waits.

    Args:
        answer: several at once; an error is the answer of its question alone.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answered | Exception]]) -> None:
        self._answer = answer
        self._waiting: deque[tuple[Asked, asyncio.Future[Answered]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def ask(self, asked: Asked) -> Answered:
        """The answer. Who goes away before it is his turn costs nothing.

        Raises:
            CloudError: too many wait already.
        """
        (future,) = self._queued([asked])
        return await future  # which is cancelled with the caller

    async def ask_all(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """Answers or errors, in order.

        Raises:
            CloudError: too many wait already.
        """
        futures = self._queued(asked)
        try:
            return list(await asyncio.gather(*futures, return_exceptions=True))  # type: ignore[arg-type]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Refuse whoever comes; who waits is answered still."""
        self._is_closed = True

    def _queued(self, asked: Sequence[Asked]) -> list[asyncio.Future[Answered]]:
        if self._is_closed or len(self._waiting) + len(asked) > WAITING:
            raise CloudError("search has more to do than it can; ask again in a while")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # nobody waits in one that ended
            self._loop = loop
            self._waiting.clear()
        futures: list[asyncio.Future[Answered]] = [loop.create_future() for _ in asked]
        if not self._waiting:  # after all that is ready now, so that others of this moment join
            loop.call_soon(self._turn, loop)
        self._waiting.extend(zip(asked, futures, strict=True))
        return futures

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        some: list[tuple[Asked, asyncio.Future[Answered]]] = []
        while self._waiting and len(some) < TOGETHER:
            pair = self._waiting.popleft()
            if not pair[1].cancelled():
                some.append(pair)
        if self._waiting:  # calls that came meanwhile are read in between
            loop.call_soon(self._turn, loop)
        if not some:
            return
        metrics.TOGETHER.observe(len(some))
        try:
            answers: Sequence[Answered | Exception] = self._answer([asked for asked, _ in some])
        except Exception as error:
            _LOG.exception("search_failed queries=%d", len(some))
            answers = [error] * len(some)
        for (_, future), answer in zip(some, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
