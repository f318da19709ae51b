"""Search as those who ask see it: one call a page, over TLS, with a key."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import grpc
from cryptography import x509

from cloud import certificates
from cloud.errors import CloudError, QueryError
from cloud.keys import inner_key
from cloud.search.predicate import Predicate
from cloud.search.query import Answers
from cloud.search.wire import answers_of, condition_message
from cloud.settings import Settings
from roadfuse.v1 import search_pb2, search_pb2_grpc

CALL_S: Final = 30.0
MESSAGE_BYTES: Final = 64 << 20
_MISTAKES: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)


class SearchAway(CloudError):
    """The Search service can't be reached, is not ready or takes too long."""


class Client:
    """Asks a Search service, of its processes the one that has the least to do; may be used by many threads.

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
        self._lock = threading.Lock()
        self._under_way = [0] * len(self._stubs)
        self._asked = 0

    @classmethod
    def inner(cls, settings: Settings) -> Client:
        """For another part of the same cloud: it needs no key of its own.

        Raises:
            CloudError: the cloud's folder has no certificate.
        """
        private, pem = certificates.server_files(settings.data / "ca")
        said = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = [str(each.value) for each in said.value]
        host = f"[{settings.inner_host}]" if ":" in settings.inner_host else settings.inner_host
        ca = certificates.load(settings.data / "ca").pem
        address = ",".join(f"{host}:{port}" for port in settings.search_ports)
        return cls(address, ca, inner_key(private), names[0])

    def close(self) -> None:
        """Let the connections go."""
        for channel in self._channels:
            channel.close()

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
            query.condition.CopyFrom(condition_message(predicate))
        request = search_pb2.SearchRequest(query=query, limit=limit, cursor=cursor, explain=explain)
        return answers_of(self._page(request), text)

    def _page(self, request: search_pb2.SearchRequest) -> search_pb2.SearchResponse:
        left = set(range(len(self._stubs)))
        while True:
            with self._lock:  # of those with as little to do, in turn
                self._asked += 1
                at = min(left, key=lambda i: (self._under_way[i], (i + self._asked) % len(self._stubs)))
                self._under_way[at] += 1
            left.remove(at)
            try:
                page: search_pb2.SearchResponse = self._stubs[at].Search(
                    request, timeout=CALL_S, metadata=self._metadata
                )
                return page
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not left:
                    raise self._error(error) from None
            finally:
                with self._lock:
                    self._under_way[at] -= 1

    def _error(self, error: Any) -> CloudError:
        if error.code() in _MISTAKES:
            return QueryError(error.details())
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return CloudError(f"{self._address}: {error.details()}")
        return SearchAway(f"{self._address}: {error.details() or error.code().name.lower()}")
