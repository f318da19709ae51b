"""What all calls share: one-line statuses for whatever goes wrong, time limits, work in threads.

A handler raises; here the error becomes a status. What is not foreseen is logged whole and answered without detail.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cloud.errors import ObjectError, Refused

Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext[Any, Any]
_LOG: Final = logging.getLogger(__name__)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Malformed:
    """Stands for a message whose bytes are none of its type."""


class Decoding(grpc.aio.ServerInterceptor):
    """Lets handlers see malformed messages, to refuse them with a status of their own."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the deserialiser of the handler that is called."""
        handler = await continuation(handler_call_details)
        if handler is None or not hasattr(handler, "_replace"):
            return handler
        return handler._replace(request_deserializer=_lenient(handler.request_deserializer))


def answered(seconds: float) -> Callable[[Any], Any]:
    """Turns what a unary handler raises into a status, and bounds how long it takes."""

    def decorate(method: Callable[[Any, Any, Context], Awaitable[Answer]]) -> Any:
        @functools.wraps(method)
        async def handler(self: Any, request: Any, context: Context) -> Answer:
            try:
                async with asyncio.timeout(seconds):
                    return await method(self, parsed(request), context)
            except Exception as error:
                await _abort(method.__name__, error, context)

        return handler

    return decorate


def answered_stream(method: Callable[[Any, Any, Context], AsyncIterator[Answer]]) -> Any:
    """Turns what a streaming handler raises into a status."""

    @functools.wraps(method)
    async def handler(self: Any, requests: Any, context: Context) -> AsyncIterator[Answer]:
        try:
            async for answer in method(self, requests, context):
                yield answer
        except Exception as error:
            await _abort(method.__name__, error, context)

    return handler


def parsed(request: Any) -> Any:
    """The message, or Refused where it is malformed."""
    if isinstance(request, Malformed):
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "expected a message of this call's type, got malformed bytes")
    return request


class Threads:
    """Threads for what waits for a disk or a database."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="cloud")

    async def run(self, work: Callable[..., Answer], *args: Any, **named: Any) -> Answer:
        """Do `work` in a thread. A caller who goes away is let go only when it is done: nothing works on unwatched."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(work, *args, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen: nobody is left to tell
            raise

    def close(self) -> None:
        """Wait for all that runs."""
        self._pool.shutdown()


def _lenient(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialise is None:
        return None

    def lenient(content: bytes) -> Any:
        try:
            return deserialise(content)
        except (DecodeError, ValueError):
            return Malformed()

    return lenient


async def _abort(call: str, error: Exception, context: Context) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status, message = _status(error)
    if status is grpc.StatusCode.INTERNAL:
        _LOG.error("call_failed call=%s", call, exc_info=error)
    elif status is grpc.StatusCode.UNAVAILABLE:
        _LOG.warning("call_unavailable call=%s error=%s", call, error)
    await context.abort(status, " ".join(message.split()))


def _status(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    ):
        return grpc.StatusCode.UNAVAILABLE, "the catalogue can't be reached; nothing of this call is lost, repeat it"
    if isinstance(error, ObjectError):
        return grpc.StatusCode.UNAVAILABLE, str(error)
    if isinstance(error, TimeoutError):
        return grpc.StatusCode.DEADLINE_EXCEEDED, "the call took too long"
    if isinstance(error, OSError):
        full = error.errno in _FULL
        return (
            grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE,
            f"the server's disk refused: {error.strerror or 'unknown error'}",
        )
    return grpc.StatusCode.INTERNAL, "the server failed; its log says why"
