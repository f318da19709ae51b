"""News for pages that are looked at, as server-sent events: one look at the queue of jobs serves all of them.

An event says that something changed, and the page fetches what it shows: what a page may show and change is decided in
one place, and nobody asks while nothing happens. Who is not let in, or hears nothing, asks now and then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress
from typing import Final

from starlette.concurrency import run_in_threadpool

from cloud.web.metrics import STREAMS

_LOG: Final = logging.getLogger(__name__)
# Pages that listen at once; each holds one of the connections that a server has (`cloud.web.server.AT_ONCE`).
MOST: Final = 64
LOOK_S: Final = 1.0
# So often each stream says that it is there, so that a page knows one that was cut off or is held up on its way.
BEAT_S: Final = 10.0
# Then a browser comes again by itself, and is asked who it is.
LONGEST_S: Final = 900.0
# Pages say how long ago things were, so that time alone is news.
STALE_S: Final = 60.0


class Feed:
    """Tells listeners when what is looked at has changed; looks only while somebody listens.

    Belongs to the event loop of its listeners.

    Args:
        look: gives something that is another one whenever there is news; runs in a thread.
    """

    def __init__(self, look: Callable[[], Hashable]) -> None:
        self._look = look
        self._listeners: set[asyncio.Event] = set()
        self._looking: asyncio.Task[None] | None = None
        self._is_over = False

    def has_room(self) -> bool:
        """Whether one more may listen."""
        return not self._is_over and len(self._listeners) < MOST

    def end(self) -> None:
        """Sends all listeners away: the server ends."""
        self._is_over = True
        if self._looking is not None:
            self._looking.cancel()

    async def events(self, is_welcome: Callable[[], bool]) -> AsyncIterator[str]:
        """A stream: an event at first and with all news, and a sign of life now and then.

        Ends when looking fails, when its listener is no longer welcome, and after a while.

        Args:
            is_welcome: asked before each event, in a thread.
        """
        news = asyncio.Event()
        self._listeners.add(news)
        STREAMS.set(len(self._listeners))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())  # its first look is the first news
        else:
            news.set()
        looking, until_s = self._looking, time.monotonic() + LONGEST_S
        try:
            yield "retry: 3000\n\n"
            while time.monotonic() < until_s:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await news.wait()
                if looking is not self._looking or not await run_in_threadpool(is_welcome):
                    return
                name = "news" if news.is_set() else "beat"
                news.clear()  # before it is said: what comes meanwhile is said next
                yield f"event: {name}\ndata: -\n\n"
        finally:
            self._listeners.discard(news)
            STREAMS.set(len(self._listeners))
            if not self._listeners and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look_on(self) -> None:
        seen: Hashable = None
        told_s = time.monotonic()
        try:
            while True:
                found = await run_in_threadpool(self._look)
                if found != seen or time.monotonic() - told_s >= STALE_S:
                    seen, told_s = found, time.monotonic()
                    self._tell_all()
                await asyncio.sleep(LOOK_S)
        except Exception as error:  # the catalogue is away, say: pages ask for themselves and are told
            _LOG.warning("stream_ended error=%s", type(error).__name__)
        finally:
            if self._looking is asyncio.current_task():
                self._looking = None
                self._tell_all()

    def _tell_all(self) -> None:
        for news in self._listeners:
            news.set()
