"""pycuda's contexts as its C++ has them (`src/cpp/cuda.hpp`): a stack for each thread, whose top owns what is made.

What is freed where another context is on top, in a thread that did not make its own, is quietly not freed. A stack that
is not empty at its thread's end aborts the process; here at the process's end. Memory is the simulated libcuda's.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections import defaultdict
from typing import Any

_library = ctypes.CDLL("libcuda.so.1")
_stacks: dict[int, list[Context]] = defaultdict(list)  # by thread


class Error(Exception):
    pass


class Context:
    def __init__(self) -> None:
        self.thread, self.is_valid = threading.get_ident(), True

    def push(self) -> None:
        _stacks[threading.get_ident()].append(self)

    @staticmethod
    def pop() -> None:
        if not _stacks[threading.get_ident()]:
            raise Error("context::pop failed: invalid device context - cannot pop non-current context")
        _stacks[threading.get_ident()].pop()

    def detach(self) -> None:
        if not self.is_valid:
            raise Error("context::detach failed: invalid device context - cannot detach from invalid context")
        self.is_valid = False


class Device:
    def __init__(self, index: int) -> None:
        pass

    def retain_primary_context(self) -> Context:
        return Context()


class _Dependent:
    def __init__(self) -> None:
        stack = _stacks[threading.get_ident()]
        if not stack:
            raise Error("explicit_context_dependent failed: invalid device context - no currently active context?")
        self._context = stack[-1]

    def _can_be_freed(self) -> bool:
        stack, context = _stacks[threading.get_ident()], self._context
        return context.is_valid and (stack[-1:] == [context] or context.thread == threading.get_ident())


class Stream(_Dependent):
    def __init__(self, flags: int) -> None:
        super().__init__()
        self.handle = id(self)


class _Memory(_Dependent):
    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._pointer = ctypes.c_void_p()
        _library.cuMemAlloc_v2(ctypes.byref(self._pointer), ctypes.c_size_t(size_bytes))

    def __int__(self) -> int:
        return self._pointer.value or 0

    def free(self) -> None:
        if self._can_be_freed():
            _library.cuMemFree_v2(self._pointer)


def init() -> None:
    pass


def mem_alloc(size_bytes: int) -> Any:
    return _Memory(size_bytes)


@atexit.register
def _end() -> None:
    if any(_stacks.values()):
        os.abort()
