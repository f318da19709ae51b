"""News for pages: one look for all who listen, none while nobody does, and an end to every stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import Any

import pytest

from cloud.web import stream
from cloud.web.stream import Feed

LOOK_S = 0.01


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", LOOK_S)


class Queue:
    """What is looked at; counts how often."""

    def __init__(self) -> None:
        self.state: Hashable = 0
        self.looks = 0

    def look(self) -> Hashable:
        self.looks += 1
        if self.state == "away":
            raise RuntimeError("the catalogue is away")
        return self.state


async def said(events: AsyncIterator[str], within_s: float = 5.0) -> str | None:
    """The next event's name; None where the stream ends."""
    try:
        while True:
            async with asyncio.timeout(within_s):
                part = await anext(events)
            if part.startswith("event: "):
                assert part.endswith("\n\n") and "\ndata: " in part, "a browser would pass it over"
                return part.splitlines()[0].removeprefix("event: ")
    except StopAsyncIteration:
        return None


def run(work: Callable[[Queue, Feed], Coroutine[Any, Any, None]]) -> Queue:
    queue = Queue()
    asyncio.run(work(queue, Feed(queue.look)))
    return queue


def listen(feed: Feed) -> Any:
    return feed.events(lambda: True)


def test_a_listener_hears_at_once_and_then_of_each_change() -> None:
    async def work(queue: Queue, feed: Feed) -> None:
        events = listen(feed)
        assert await said(events) == "news"
        for state in range(1, 4):
            queue.state = state
            assert await said(events) == "news"

    run(work)


def test_nothing_is_said_but_a_sign_of_life_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BEAT_S", 0.1)

    async def work(queue: Queue, feed: Feed) -> None:
        events = listen(feed)
        assert [await said(events) for _ in range(3)] == ["news", "beat", "beat"]

    assert run(work).looks > 3


def test_time_alone_is_news_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STALE_S", 0.05)

    async def work(queue: Queue, feed: Feed) -> None:
        events = listen(feed)
        assert [await said(events) for _ in range(3)] == ["news"] * 3

    run(work)


def test_one_look_serves_all_and_nobody_looks_when_all_are_gone() -> None:
    async def work(queue: Queue, feed: Feed) -> None:
        streams = [listen(feed) for _ in range(20)]
        assert [await said(events) for events in streams] == ["news"] * 20
        assert queue.looks < 20 + 5
        queue.state = 1
        assert [await said(events) for events in streams] == ["news"] * 20
        for events in streams:
            await events.aclose()
        await asyncio.sleep(5 * LOOK_S)
        before = queue.looks
        await asyncio.sleep(10 * LOOK_S)
        assert queue.looks == before and feed.has_room()
        assert await said(listen(feed)) == "news", "who comes later hears again"

    run(work)


def test_so_many_may_listen_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST", 3)

    async def work(queue: Queue, feed: Feed) -> None:
        streams = [listen(feed) for _ in range(3)]
        for events in streams:
            assert feed.has_room()
            await said(events)
        assert not feed.has_room()
        await streams[0].aclose()
        assert feed.has_room()

    run(work)


def test_streams_end_when_looking_fails_and_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(queue: Queue, feed: Feed) -> None:
        streams = [listen(feed) for _ in range(3)]
        for events in streams:
            await said(events)
        queue.state = "away"
        assert [await said(events) for events in streams] == [None] * 3
        queue.state = 1
        assert await said(listen(feed)) == "news"

    run(work)


def test_who_is_no_longer_welcome_is_sent_away() -> None:
    async def work(queue: Queue, feed: Feed) -> None:
        is_welcome = True
        events = feed.events(lambda: is_welcome)
        assert await said(events) == "news"
        is_welcome = False
        queue.state = 1
        assert await said(events) is None

    run(work)


def test_all_are_sent_away_when_the_server_ends() -> None:
    async def work(queue: Queue, feed: Feed) -> None:
        streams = [listen(feed) for _ in range(3)]
        for events in streams:
            await said(events)
        feed.end()
        assert [await said(events, 1.0) for events in streams] == [None] * 3 and not feed.has_room()

    run(work)


def test_no_stream_lasts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST_S", 0.05)

    async def work(queue: Queue, feed: Feed) -> None:
        events = listen(feed)
        assert await said(events) == "news"
        await asyncio.sleep(0.1)
        queue.state = 1
        heard = [await said(events), await said(events)]
        assert None in heard

    run(work)
