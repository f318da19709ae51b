"""The service `Search`, with `Embed` beside it: gRPC over TLS, for whoever has a key."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cloud import certificates
from cloud.calls import Context, Decoding, Threads, answered
from cloud.credentials import server_credentials
from cloud.database import opened
from cloud.embed import server as embed_server
from cloud.embed.gateway import Gateway
from cloud.embed.item import Item
from cloud.errors import CloudError, QueryError, Refused
from cloud.health import Health
from cloud.keys import Keys, bearer, inner_key
from cloud.processes import when_told_to_end
from cloud.search import wire
from cloud.search.predicate import ANY, Predicate
from cloud.search.query import Answers, Like, Query, Request
from cloud.search.rank import MAX_LIKES
from cloud.search.searcher import Searcher
from cloud.settings import Settings
from roadfuse.v1 import search_pb2, search_pb2_grpc

Result = TypeVar("Result")
_LOG: Final = logging.getLogger(__name__)
SEARCH: Final = search_pb2.DESCRIPTOR.services_by_name["Search"].full_name
CALL_S: Final = 30.0
# A page of a thousand answers is some 200 kB; a picture, sound or clip to search by is the most that comes in.
MESSAGE_BYTES: Final = 40 << 20
CALLS: Final = 4_096
# Of them on one connection, where further ones wait: so nobody takes them all with one.
CALLS_OF_CONNECTION: Final = 256
PENDING: Final = 8_192
# Beyond so many in hand, half a second's worth, a query is refused at once rather than answered too late.
UNDER_WAY: Final = 512
USUAL_LIMIT: Final = 20
DRAIN_S: Final = 10.0
WATCH_S: Final = 1.0
# Threads that follow the database give the interpreter back to queries sooner than after the usual 5 ms.
SWITCH_S: Final = 0.0005
# Objects that come before garbage is looked for: a query makes some hundred, hardly any of them in a circle.
GARBAGE: Final = 20_000
# Open to all: whether it is up. Not what it speaks: such a call has no end, and takes the room of one.
_OPEN: Final = "/grpc.health.v1.Health/"


class Search(search_pb2_grpc.SearchServicer):
    """Answers from a searcher."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._under_way = 0

    @answered(CALL_S)
    async def Search(self, request: Any, context: Context) -> search_pb2.SearchResponse:
        """A page of answers to one query."""
        (page,) = await self._pages([request])
        if isinstance(page, CloudError):
            raise _refused(page)
        return wire.response(page)

    @answered(CALL_S)
    async def SearchBatch(self, request: Any, context: Context) -> search_pb2.SearchBatchResponse:
        """A page, or an error, for each query."""
        pages = await self._pages(request.requests)
        return search_pb2.SearchBatchResponse(outcomes=map(wire.outcome, pages))

    @answered(CALL_S)
    async def Understand(self, request: Any, context: Context) -> search_pb2.UnderstandResponse:
        """A text as conditions."""
        try:
            said = self._searcher.understand(request.text)
        except CloudError as error:
            raise _refused(error) from None
        return search_pb2.UnderstandResponse(condition=wire.condition_message(said.predicate), residual=said.residual)

    @answered(CALL_S)
    async def Statistics(self, request: Any, context: Context) -> search_pb2.StatisticsResponse:
        """What can be found now."""
        return search_pb2.StatisticsResponse(**self._searcher.statistics())

    async def _pages(self, messages: Sequence[Any]) -> list[Answers | CloudError]:
        if self._under_way >= UNDER_WAY:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {UNDER_WAY} queries at once, got one more; ask again in a while",
            )
        self._under_way += len(messages)
        try:
            read = [await self._request_or_error(message) for message in messages]
            good = [each for each in read if isinstance(each, Request)]
            pages = iter(await self._searcher.search_all(good) if good or not read else [])
        except CloudError as error:
            raise _refused(error) from None
        finally:
            self._under_way -= len(messages)
        return [next(pages) if isinstance(each, Request) else each for each in read]

    async def _request_or_error(self, message: Any) -> Request | CloudError:
        try:
            return await self._request(message)
        except CloudError as error:
            return error

    async def _request(self, message: Any) -> Request:
        predicate = wire.condition_of(message.query.condition) if message.query.HasField("condition") else None
        query = await query_of(self._searcher, message.query, predicate)
        return Request(query, message.limit or USUAL_LIMIT, message.cursor, message.explain)


async def query_of(searcher: Searcher, message: Any, predicate: Predicate | None) -> Query:
    """The query of a message, its examples embedded; texts are when it is answered.

    Args:
        predicate: of the message; None leaves it to the text.

    Raises:
        CloudError: it can't be.
    """
    if len(message.examples) > MAX_LIKES:
        raise QueryError(f"expected at most {MAX_LIKES} examples, got {len(message.examples)}")
    texts = tuple(
        (example.text, wire.weight_of(example))
        for example in message.examples
        if example.WhichOneof("example") == "text"
    )
    likes = [await _like(searcher, one) for one in message.examples if one.WhichOneof("example") != "text"]
    return Query(ANY if predicate is None else predicate, tuple(likes), message.text, texts)


async def _like(searcher: Searcher, example: Any) -> Like:
    kind, weight = example.WhichOneof("example"), wire.weight_of(example)
    match kind:
        case "image":
            return await searcher.like(Item("image", example.image), weight, kind)
        case "sound":
            return await searcher.like(Item("audio", example.sound), weight, kind)
        case "clip":
            return await searcher.like(Item("video", example.clip), weight, kind)
        case "moment":
            moment = example.moment
            instant_ns = moment.instant_ns if moment.HasField("instant_ns") else None
            return searcher.like_scene(moment.scene_id, instant_ns, weight)
        case "vector":
            return wire.like_of(example.vector, weight)
        case _:
            raise QueryError("expected an example, got an empty one")


def _refused(error: CloudError) -> Refused:
    return Refused(*wire.refusal(error))


class Guard(grpc.aio.ServerInterceptor):
    """Lets in who has a key. Calls of health need none."""

    def __init__(self, keys: Keys, threads: Threads) -> None:
        self._keys = keys
        self._threads = threads

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Look at the key before anything of the call is read."""
        if handler_call_details.method.startswith(_OPEN):
            return await continuation(handler_call_details)
        key = bearer(handler_call_details.invocation_metadata)
        try:
            if self._keys.remembered(key) is None:
                await self._threads.run(self._keys.holder, key)
        except Refused as error:
            return _refusing(error.status, str(error))
        except SQLAlchemyError:
            return _refusing(grpc.StatusCode.UNAVAILABLE, "the catalogue can't be reached; repeat the call")
        return await continuation(handler_call_details)


def _refusing(status: grpc.StatusCode, message: str) -> Any:
    async def refuse(requests: Any, context: Context) -> None:
        await context.abort(status, message)

    # As a stream, whatever is called: a single request would be waited for first, and may never come.
    return grpc.stream_stream_rpc_method_handler(refuse)


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of this process.
        tell: is given the address, once calls are answered.

    Raises:
        CloudError: it can't start; one line says why.
    """
    server_key, _ = certificates.server_files(settings.data / "ca")
    with opened(settings.data, settings.database, share=True) as engine:
        run(_serve(settings, server_key, engine, tell))


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run search in a loop that is compiled: of a query's time asyncio's own takes a tenth (docs/search.md)."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _serve(settings: Settings, server_key: bytes, engine: Engine, tell: Callable[[str], None]) -> None:
    gateway = embed_server.gateway_of(settings)
    await answer(settings, server_key, engine, gateway, Searcher(engine, gateway), tell)


async def answer(
    settings: Settings,
    server_key: bytes,
    engine: Engine,
    gateway: Gateway,
    searcher: Searcher,
    tell: Callable[[str], None],
) -> None:
    """Answer calls from a searcher until SIGTERM or SIGINT; it is started here and closed at the end.

    Args:
        server_key: of the server's certificate, PEM: who can read it calls as a part of the same cloud.
    """
    stopping = asyncio.Event()
    when_told_to_end(stopping.set)
    threads = Threads(2)
    sys.setswitchinterval(SWITCH_S)
    server = grpc.aio.server(
        interceptors=[Guard(Keys(engine, inner_key(server_key)), threads), Decoding()],
        maximum_concurrent_rpcs=CALLS,
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", CALLS_OF_CONNECTION),
            # It would refuse calls that come as others end, which gRPC counts for a little longer than who called.
            ("grpc.http.overload_protection", 0),
            ("grpc.so_reuseport", 0),
            # As in cloud/server.py: a caller who fell silent without a word is found out.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            # Beyond a thousand calls that no handler has yet, gRPC cancels some at random, with no word why.
            ("grpc.server.max_pending_requests", PENDING),
            ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING),
        ],
    )
    search_pb2_grpc.add_SearchServicer_to_server(Search(searcher), server)
    embed_server.add_to(server, gateway)
    watch: Any = Health()
    health_pb2_grpc.add_HealthServicer_to_server(watch, server)
    names = [SEARCH, embed_server.EMBED, "grpc.health.v1.Health", reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    host = f"[{settings.inner_host}]" if ":" in settings.inner_host else settings.inner_host
    (wanted,) = settings.search_ports
    try:
        port = server.add_secure_port(f"{host}:{wanted}", server_credentials(settings.data / "ca"))
    except RuntimeError:
        raise CloudError(
            f"expected a free port, got {host}:{wanted}, where nobody may listen or somebody does"
        ) from None
    await asyncio.to_thread(searcher.warm)
    searcher.start()
    for name in ("", SEARCH, embed_server.EMBED):
        await watch.set(name, HealthCheckResponse.NOT_SERVING)
    await server.start()
    watching = asyncio.create_task(_watch(searcher, watch))
    tell(f"search {host}:{port}")
    await stopping.wait()
    watching.cancel()
    await asyncio.wait([watching])
    await watch.enter_graceful_shutdown()
    await server.stop(DRAIN_S)
    await asyncio.to_thread(searcher.close)
    await gateway.close()
    threads.close()


async def _watch(searcher: Searcher, watch: Any) -> None:
    """Healthy once everything was loaded. A database that is away later leaves search as it was, and healthy."""
    for name in ("", embed_server.EMBED):
        await watch.set(name, HealthCheckResponse.SERVING)
    while not searcher.is_ready:
        await asyncio.sleep(WATCH_S / 10)
    # What was loaded stays: to look through it again and again for garbage would hold up all calls.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    await watch.set(SEARCH, HealthCheckResponse.SERVING)
    await asyncio.Event().wait()
