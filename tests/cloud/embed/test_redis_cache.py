"""A cache in a real Redis: several servers share it, none of them needs it, and nothing damaged is believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from prometheus_client import REGISTRY

pytest.importorskip("redis", reason="the extra `redis` is not installed")

from cloud.embed import redis_cache
from cloud.embed.circuit import FIRST_REST_S
from cloud.embed.gateway import Gateway
from cloud.embed.item import Item
from cloud.embed.redis_cache import PREFIX, RedisCache
from cloud.embed.wire import answer_of
from cloud.errors import CloudError
from roadfuse.v1 import embed_pb2_grpc

from .redis_server import MISSING, REDIS, RedisServer
from .test_batching import Slow, check, gateway, hits, vector
from .test_cache import Clock, key
from .test_contents import tone, wav
from .test_server import Server, request, served

pytestmark = pytest.mark.skipif(REDIS is None, reason=MISSING)
Answer = TypeVar("Answer")
AGE_S = 1000.0
NAME = PREFIX + key(b"x").hex().encode()
CALL_S = redis_cache.CALL_S
# What an embed may lose to a Redis that is there and does not answer; the rest is a busy machine's.
STALL_S = 2 * CALL_S + 1.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def server(shared: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """An empty one, and patience: on a busy machine a call may take longer than it may."""
    monkeypatch.setattr(redis_cache, "CALL_S", 10.0)
    shared.client.flushall()
    return shared


def counted(what: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"roadfuse_embed_cache_{what}_total", labels) or 0.0


def with_cache(
    url: str, work: Callable[[RedisCache], Awaitable[Answer]], clock: Callable[[], float] = time.time
) -> Answer:
    async def run() -> Answer:
        cache = RedisCache(url, AGE_S, clock)
        try:
            return await work(cache)
        finally:
            await cache.close()

    return asyncio.run(run())


def test_what_one_server_kept_another_finds_with_its_instant(server: RedisServer) -> None:
    with_cache(server.url, lambda cache: cache.put(key(b"x"), vector(b"x", "video")))
    assert with_cache(server.url, lambda cache: cache.get(key(b"x"))) == vector(b"x", "video")
    assert with_cache(server.url, lambda cache: cache.get(key(b"y"))) is None


def test_an_entry_goes_by_itself_when_it_is_old(server: RedisServer) -> None:
    with_cache(server.url, lambda cache: cache.put(key(b"x"), vector(b"x")))
    assert (AGE_S - 30) * 1e3 < server.client.pttl(NAME) <= AGE_S * 1e3


@pytest.mark.parametrize("later_s, is_found", [(AGE_S - 1, True), (AGE_S + 1, False), (-10, True), (-1000, False)])
def test_an_old_entry_and_one_from_far_in_the_future_are_not_found(
    server: RedisServer, later_s: float, is_found: bool
) -> None:
    clock = Clock()
    with_cache(server.url, lambda cache: cache.put(key(b"x"), vector(b"x")), clock)
    clock.now_s += later_s
    found = with_cache(server.url, lambda cache: cache.get(key(b"x")), clock)
    assert (found == vector(b"x")) if is_found else found is None


@pytest.mark.parametrize("at", [0, 9, 20, 60, -33, -1])
def test_a_flipped_bit_is_found_counted_and_dropped(server: RedisServer, at: int) -> None:
    with_cache(server.url, lambda cache: cache.put(key(b"x"), vector(b"x")))
    content = bytearray(server.client.get(NAME))
    content[at] ^= 4
    server.client.set(NAME, bytes(content))
    before = counted("corrupt", level="redis")
    assert with_cache(server.url, lambda cache: cache.get(key(b"x"))) is None
    assert counted("corrupt", level="redis") == before + 1 and not server.client.exists(NAME)


@pytest.mark.parametrize("content", [b"short", bytes(1000), bytes(8 << 20)])
def test_what_is_no_entry_is_dropped(server: RedisServer, content: bytes) -> None:
    server.client.set(NAME, content)
    assert with_cache(server.url, lambda cache: cache.get(key(b"x"))) is None and not server.client.exists(NAME)


def test_an_entry_under_another_key_is_not_believed(server: RedisServer) -> None:
    with_cache(server.url, lambda cache: cache.put(key(b"y"), vector(b"y")))
    server.client.copy(PREFIX + key(b"y").hex().encode(), NAME)
    assert with_cache(server.url, lambda cache: cache.get(key(b"x"))) is None
    assert with_cache(server.url, lambda cache: cache.get(key(b"y"))) == vector(b"y")


def test_what_redis_refuses_is_counted_and_the_rest_goes_on(server: RedisServer) -> None:
    server.client.rpush(NAME, "a list")

    async def work(cache: RedisCache) -> None:
        await cache.put(key(b"y"), vector(b"y"))
        before = counted("unanswered"), counted("unwritten", level="redis")
        assert await cache.get(key(b"x")) is None
        server.client.config_set("maxmemory", 1)
        try:
            await cache.put(key(b"z"), vector(b"z"))
        finally:
            server.client.config_set("maxmemory", 0)
        assert (counted("unanswered"), counted("unwritten", level="redis")) == (before[0] + 2, before[1] + 1)
        assert await cache.get(key(b"y")) == vector(b"y"), "it is not left alone for that"

    with_cache(server.url, work)


@pytest.mark.parametrize("url", ["", "redis", "http://host", "redis://:secret@host:port/0", "redis://host:99999999"])
def test_a_url_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(CloudError, match=r"expected redis://HOST:PORT/N, got another URL$"):
        RedisCache(url, AGE_S)


def images(gateway: Gateway, *contents: bytes) -> Awaitable[list]:
    return gateway.embed([Item("image", content) for content in contents])


def test_memory_goes_first_then_redis_then_the_disk(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        for number in range(3):  # three servers of one Redis; the last two share a disk with nobody
            encoders = Slow()
            made = gateway(encoders, redis=server.url, disk=tmp_path / str(number))
            before = hits("redis", "image"), hits("memory", "image")
            for _ in range(2):
                check(b"x", (await images(made, b"x"))[0])
            assert encoders.asked[b"x"] == (number == 0)
            expected = (before[0] + (number > 0), before[1] + 1)
            assert (hits("redis", "image"), hits("memory", "image")) == expected
            await made.close()
        server.client.flushall()
        before_disk = hits("disk", "image")
        made = gateway(Slow(), redis=server.url, disk=tmp_path / "0")
        check(b"x", (await images(made, b"x"))[0])
        await made.close()
        assert hits("disk", "image") == before_disk + 1
        assert server.client.dbsize() == 1, "what the disk kept, Redis keeps again"

    asyncio.run(run())


def test_texts_stay_out_of_redis(server: RedisServer) -> None:
    async def run() -> None:
        made = gateway(Slow(), redis=server.url)
        await made.embed([Item("text", b"night")])
        await made.close()

    asyncio.run(run())
    assert server.client.dbsize() == 0


def test_a_redis_that_is_away_costs_nothing_and_is_found_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as mortal:

        async def run() -> None:
            encoders = Slow()
            made = gateway(encoders, redis=mortal.url)
            mortal.kill()
            begun_s = time.monotonic()
            for number in range(20):
                check(bytes([number]), (await images(made, bytes([number])))[0])
            assert time.monotonic() - begun_s < 20 * CALL_S, "it is not asked each time"
            mortal.start()
            await asyncio.sleep(2 * FIRST_REST_S + 0.1)
            for number in range(20, 24):
                check(bytes([number]), (await images(made, bytes([number])))[0])
            await made.close()
            assert mortal.client.dbsize() > 0

        asyncio.run(run())


def test_a_redis_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as mortal:

        async def run() -> None:
            made = gateway(Slow(), redis=mortal.url)
            await images(made, b"first")
            mortal.stop()
            try:
                names = [b"%d" % number for number in range(100)]
                begun_s = time.monotonic()
                answers = await images(made, *names)
                assert time.monotonic() - begun_s < STALL_S
                for name, answer in zip(names, answers):
                    check(name, answer)
                begun_s = time.monotonic()
                await images(made, *(b"more" + name for name in names))
                assert time.monotonic() - begun_s < STALL_S
            finally:
                mortal.go_on()
            await made.close()

        asyncio.run(run())


def test_two_servers_share_what_either_encoded(server: RedisServer, tmp_path: Path) -> None:
    sounds = [Item("audio", wav(tone(300 + number, 1.0))) for number in range(20)]
    found: list[list] = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        with (
            served(tmp_path / str(number), "audio", words=("--cache-redis", server.url)) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            stub = embed_pb2_grpc.EmbedStub(channel)
            found.append([])
            for sound in sounds:  # one by one: on a busy machine some calls of Redis are given up
                (answer,) = stub.Embed(request(sound), timeout=30).answers
                found[-1].append(answer_of(answer))
    assert found[0] == found[1]
    assert server.client.dbsize() > 0 and server.client.info("stats")["keyspace_hits"] > 0


def test_a_server_that_can_have_no_such_cache_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"a cache in Redis: expected redis://HOST:PORT/N, got another URL\n"):
        Server(tmp_path, "text", words=("--cache-redis", "http://host"))
