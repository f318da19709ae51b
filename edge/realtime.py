"""One switch for a loop that must not be disturbed; it reports what the system refused."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import cv2

_MCL_CURRENT_AND_FUTURE: Final = 3
_SWITCH_INTERVAL_S: Final = 0.0005
_BEFORE_OTHERS: Final = -15  # niceness


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing asked of the system; `refusal` is "" when it was granted."""

    name: str
    refusal: str


def realtime(core: int | None = None, priority: int = 50, beside: Collection[int] = ()) -> list[Measure]:
    """Ask for everything that keeps a frame's time short and even, for the calling thread and this process.

    FIFO scheduling, one core, memory locked, no garbage collection over what exists now (the loop makes no cycles),
    a short switch interval so that an I/O thread gives the interpreter back at once.

    Args:
        core: to pin to; None takes the last one that this process may use.
        priority: of FIFO scheduling, 1..99.
        beside: threads (their native ids) that the loop waits for: scheduled as it is, on the other cores if there are.
    """
    cores = sorted(os.sched_getaffinity(0))
    wanted = cores[-1] if core is None else core

    def schedule() -> None:
        for thread in (0, *beside):
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))

    def pin() -> None:
        os.sched_setaffinity(0, {wanted})
        for thread in beside:
            os.sched_setaffinity(thread, set(cores) - {wanted} or cores)

    def lock_memory() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(_MCL_CURRENT_AND_FUTURE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def freeze_garbage() -> None:
        gc.collect()
        gc.freeze()
        gc.disable()

    def switch_interval() -> None:
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    return [
        _ask(f"fifo scheduling, priority {priority}", schedule),
        _ask(f"core {wanted}", pin),
        _ask("memory locked", lock_memory),
        _ask("garbage frozen", freeze_garbage),
        _ask(f"switch interval {_SWITCH_INTERVAL_S * 1e3:g} ms", switch_interval),
    ]


def without_spinning() -> None:
    """Let OpenCV work in the threads that call it: its own spin between frames, and pictures are too small for them."""
    cv2.setNumThreads(1)


def ordinary(cores: Collection[int], thread: int = 0) -> None:
    """Let a thread, and what it starts, come after the loop: a new thread or process has its starter's scheduling.

    It stays before all other work: while it has the interpreter's lock and no processor, the loop waits for both.

    Args:
        cores: that this process may use; the one that the loop is pinned to is left to it where there is another.
        thread: its native id, or that of a process; 0 is the calling one.
    """
    pinned = os.sched_getaffinity(thread)
    if os.sched_getscheduler(thread) == os.SCHED_OTHER and pinned >= set(cores):
        return  # as all threads are without `realtime`
    with suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, _BEFORE_OTHERS)
    with suppress(OSError):
        if cores:
            os.sched_setaffinity(thread, set(cores) - pinned or cores)


def _ask(name: str, measure: Callable[[], None]) -> Measure:
    try:
        measure()
    except OSError as error:
        return Measure(name, error.strerror or str(error))
    return Measure(name, "")
