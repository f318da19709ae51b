"""A second lane beside the loop's thread, for what of a step needs no result of its costliest part.

A model call lets go of the interpreter's lock; meanwhile the lane has it. The loop waits for the lane before its step
ends, so nothing of the lane is ever under way between two steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Calls = SimpleQueue[tuple[Callable[[], Any], SimpleQueue[tuple[Any, BaseException | None]]] | None]


class Lane:
    """One thread, which takes calls in their order; it ends with the lane.

    Attributes:
        native_id: of the thread.
    """

    def __init__(self) -> None:
        self._calls: _Calls = SimpleQueue()
        thread = Thread(target=_serve, args=(self._calls,), name="lane", daemon=True)
        thread.start()
        assert thread.native_id is not None  # it has begun
        self.native_id = thread.native_id
        weakref.finalize(self, self._calls.put, None)

    def begin(self, call: Callable[[], T]) -> Callable[[], T]:
        """Let a call run beside the caller; what is returned waits for it, once, and gives or raises what it did."""
        reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._calls.put((call, reply))

        def outcome() -> T:
            result, error = reply.get()
            if error is not None:
                raise error
            found: T = result
            return found

        return outcome


def _serve(calls: _Calls) -> None:
    while (taken := calls.get()) is not None:
        call, reply = taken
        try:
            reply.put((call(), None))
        except BaseException as error:  # at a thread's top: who waits for it raises it
            reply.put((None, error))
        del taken, call, reply  # a frame must not live until the next
