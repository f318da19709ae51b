"""Search as those who ask see it, over TLS and with a key.

A thread for each process of search takes what waits and asks for it in one call. So a query leaves at once while a
process is idle, what comes while all are busy goes together, and nothing waits for company: the more there is to do,
the less a query costs, for of a call of its own gRPC is a third (docs/decisions/0019).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import grpc

from cloud import certificates
from cloud.errors import CloudError, QueryError
from cloud.keys import inner_key
from cloud.search import wire
from cloud.search.predicate import Predicate
from cloud.search.query import Answers
from cloud.settings import Settings
from roadfuse.v1 import search_pb2, search_pb2_grpc

CALL_S: Final = 30.0
# Queries in one call: each answer goes back with the last of its call.
TOGETHER: Final = 16
# Beyond, nobody would wait for the answer.
WAITING: Final = 4_096
MESSAGE_BYTES: Final = 64 << 20
# Is embedded before it is looked for, which takes longer than words do.
_CONTENT: Final = ("image", "sound", "clip")
_MISTAKES: Final = (
    grpc.StatusCode.INVALID_ARGUMENT.value[0],
    grpc.StatusCode.NOT_FOUND.value[0],
    grpc.StatusCode.FAILED_PRECONDITION.value[0],
)
_UNAUTHENTICATED: Final = grpc.StatusCode.UNAUTHENTICATED.value[0]
_UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE.value[0]
_CLOSED: Final = wire.failure(grpc.StatusCode.CANCELLED, "closed")
_FULL: Final = wire.failure(
    grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected at most {WAITING} queries to wait, got one more"
)
_LATE: Final = wire.failure(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


class SearchAway(CloudError):
    """The Search service can't be reached, is not ready or takes too long."""


class _Asked(NamedTuple):
    """A request, and what becomes its page."""

    request: search_pb2.SearchRequest
    page: Future[search_pb2.SearchResponse]


class Client:
    """Asks a Search service, of its processes one that is idle, else the next that is; may be used by many threads.

    A process that is away costs a try, and another one is asked.

    Args:
        address: HOST:PORT[,HOST:PORT...].
        ca: what the server's certificate is signed by, PEM.
        key: an API key.
        name: by which the certificate knows the server, where that is not HOST.
    """

    def __init__(self, address: str, ca: bytes, key: str, name: str = "") -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),)
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", MESSAGE_BYTES)]
        if name:
            options.append(("grpc.ssl_target_name_override", name))
        credentials = grpc.ssl_channel_credentials(ca)
        self._channels = [grpc.secure_channel(one, credentials, options) for one in address.split(",")]
        self._stubs = [search_pb2_grpc.SearchStub(channel) for channel in self._channels]
        self._under_way = [0] * len(self._stubs)
        self._waiting: SimpleQueue[_Asked | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    @classmethod
    def inner(cls, settings: Settings) -> Client:
        """For another part of the same cloud: it needs no key of its own.

        Raises:
            CloudError: the cloud's folder has no certificate.
        """
        private, pem = certificates.server_files(settings.data / "ca")
        host = f"[{settings.inner_host}]" if ":" in settings.inner_host else settings.inner_host
        ca = certificates.load(settings.data / "ca").pem
        address = ",".join(f"{host}:{port}" for port in settings.search_ports)
        return cls(address, ca, inner_key(private), certificates.names_of(pem)[0])

    def close(self) -> None:
        """Let the connections go. Who waits still is told so."""
        with self._lock:
            self._is_closed = True
        for channel in self._channels:
            channel.close()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        while not self._waiting.empty():
            asked = self._waiting.get()
            if asked is not None and asked.page.set_running_or_notify_cancel():
                asked.page.set_exception(self._error(_CLOSED))

    def search(
        self,
        text: str = "",
        predicate: Predicate | None = None,
        examples: Sequence[search_pb2.SearchExample] = (),
        *,
        limit: int = 0,
        cursor: str = "",
        explain: bool = False,
    ) -> Answers:
        """A page of answers.

        Args:
            text: as typed; its conditions count where `predicate` is None.
            examples: what answers are to be like, or unlike.
            limit: 0: as many as the server likes.
            cursor: of the page before.

        Raises:
            QueryError: it can't be understood.
            SearchAway: ask again.
        """
        query = search_pb2.SearchQuery(text=text, examples=examples)
        if predicate is not None:
            query.condition.CopyFrom(wire.condition_message(predicate))
        request = search_pb2.SearchRequest(query=query, limit=limit, cursor=cursor, explain=explain)
        if explain or any(example.WhichOneof("example") in _CONTENT for example in examples):
            page: Future[search_pb2.SearchResponse] = Future()
            self._call([_Asked(request, page)], self._least_busy())  # it takes longer: nobody else is to wait for it
        else:
            page = self.ask(request)
        try:
            return wire.answers_of(page.result(CALL_S), text)
        except TimeoutError:
            page.cancel()
            raise self._error(_LATE) from None

    def ask(self, request: search_pb2.SearchRequest) -> Future[search_pb2.SearchResponse]:
        """What becomes the page, or the error that `search` would raise; nothing is waited for.

        It may go together with others. Content and explanations take longer than words, and others would wait: `search`
        asks for these alone, and of the process that has the least to do.
        """
        asked = _Asked(request, Future())
        with self._lock:
            if self._is_closed or self._waiting.qsize() >= WAITING:
                asked.page.set_exception(self._error(_CLOSED if self._is_closed else _FULL))
                return asked.page
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._work, args=(at,), name=f"search-client-{at}", daemon=True)
                    for at in range(len(self._stubs))
                ]
                for thread in self._threads:
                    thread.start()
            self._waiting.put(asked)
        return asked.page

    def _work(self, at: int) -> None:
        """Ask one process for what waits, until None comes."""
        while (asked := self._waiting.get()) is not None:
            some = [asked]
            with contextlib.suppress(Empty):
                while len(some) < TOGETHER and (asked := self._waiting.get_nowait()) is not None:
                    some.append(asked)
            if asked is None:
                self._waiting.put(None)
            some = [each for each in some if each.page.set_running_or_notify_cancel()]
            if some:
                self._call(some, at)

    def _least_busy(self) -> int:
        with self._lock:
            return min(range(len(self._stubs)), key=self._under_way.__getitem__)

    def _call(self, some: list[_Asked], first: int) -> None:
        """Ask a process, and others for what is UNAVAILABLE there; tell each what became of its request."""
        for tried in range(len(self._stubs)):
            again = []
            for asked, outcome in zip(some, self._outcomes(some, (first + tried) % len(self._stubs)), strict=True):
                if not outcome.failure.code:
                    asked.page.set_result(outcome.response)
                elif outcome.failure.code == _UNAVAILABLE and tried < len(self._stubs) - 1:
                    again.append(asked)
                else:
                    asked.page.set_exception(self._error(outcome.failure))
            if not again:
                return
            some = again

    def _outcomes(self, some: list[_Asked], at: int) -> Sequence[search_pb2.SearchOutcome]:
        """What a process says to each; what goes wrong with the call is everybody's."""
        batch = search_pb2.SearchBatchRequest(requests=[asked.request for asked in some])
        with self._lock:
            self._under_way[at] += len(some)
        try:
            outcomes = self._stubs[at].SearchBatch(batch, timeout=CALL_S, metadata=self._metadata).outcomes
            if len(outcomes) == len(some):
                return outcomes  # type: ignore[no-any-return]
            failed = wire.failure(grpc.StatusCode.INTERNAL, f"expected {len(some)} answers, got {len(outcomes)}")
        except grpc.RpcError as error:
            failed = wire.failure(error.code(), error.details() or error.code().name.lower())
        except ValueError:  # of a channel that was closed
            failed = _CLOSED
        finally:
            with self._lock:
                self._under_way[at] -= len(some)
        return [search_pb2.SearchOutcome(failure=failed)] * len(some)

    def _error(self, failure: search_pb2.SearchFailure) -> CloudError:
        if failure.code in _MISTAKES:
            return QueryError(failure.message)
        message = f"{self._address}: {failure.message}"
        return CloudError(message) if failure.code == _UNAUTHENTICATED else SearchAway(message)
