"""What the cloud's processes owe each other: to end when told or with their parent, to leave a folder to who has it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cloud.errors import CloudError

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:  # or it has ended already
        os._exit(1)


def when_told_to_end(call: Callable[..., object], *arguments: object) -> None:
    """Call this once in the running loop, on SIGTERM or SIGINT.

    Any more of them are ignored, also after the loop: a supervisor that tells a parent and each of its children, or an
    impatient hand, must not kill what ends as it should.
    """
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)  # or the end of the loop would, and give the signal its usual effect
            signal.signal(number, signal.SIG_IGN)
        call(*arguments)

    for number in numbers:
        loop.add_signal_handler(number, told)


def told_to_end() -> threading.Event:
    """An event that SIGTERM and SIGINT set, for a main thread that waits for it.

    Another thread sets it: a handler runs in the main one, which may just hold the event's lock.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=told.set).start())
    return told


@contextlib.contextmanager
def alone(data: Path, lock: str) -> Iterator[None]:
    """Have a folder for this process alone.

    Args:
        data: the folder.
        lock: name of a file in it; whoever asks by another name is not kept out.

    Raises:
        CloudError: another process has it.
    """
    with (data / lock).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CloudError(
                f"{data}: expected a folder of this server alone, got one that another server uses"
            ) from None
        yield
