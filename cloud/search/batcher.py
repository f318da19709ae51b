"""Queries that wait are answered together, by one thread: while it works others gather, and none waits for company."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from cloud.errors import CloudError
from cloud.search import metrics

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
_LOG: Final = logging.getLogger(__name__)
TOGETHER: Final = 64
# Beyond, nobody would wait for the answer.
WAITING: Final = 4_096


class Batcher(Generic[Asked, Answered]):
    """A thread that answers.

    Args:
        answer: several at once; an error is the answer of its question alone.
    """

    def __init__(self, answer: Callable[[Sequence[Asked]], Sequence[Answered | Exception]]) -> None:
        self._answer = answer
        self._waiting: deque[tuple[Asked, asyncio.Future[Answered]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="search", daemon=True)
        self._thread.start()

    async def ask(self, asked: Asked) -> Answered:
        """The answer. Who goes away before it is his turn costs nothing.

        Raises:
            CloudError: too many wait already.
        """
        (answer,) = await self.ask_all([asked])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_all(self, asked: Sequence[Asked]) -> list[Answered | Exception]:
        """Answers or errors, in order."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answered]] = [loop.create_future() for _ in asked]
        with self._changed:
            if self._is_closed or len(self._waiting) + len(asked) > WAITING:
                raise CloudError("search has more to do than it can; ask again in a while")
            self._waiting.extend(zip(asked, futures, strict=True))
            self._changed.notify()
        try:
            return list(await asyncio.gather(*futures, return_exceptions=True))  # type: ignore[arg-type]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the thread; whoever waits is let go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                some = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
            some = [(asked, future) for asked, future in some if not future.cancelled()]
            if not some:
                continue
            metrics.TOGETHER.observe(len(some))
            try:
                answers: Sequence[Answered | Exception] = self._answer([asked for asked, _ in some])
            except Exception as error:
                _LOG.exception("search_failed queries=%d", len(some))
                answers = [error] * len(some)
            _deliver([future for _, future in some], answers)


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
