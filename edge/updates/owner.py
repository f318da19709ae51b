"""One agent at a time has a folder of updates."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from edge.errors import UpdateError

LOCK: Final = "agent.lock"


class Owner:
    """Holds the folder while in a `with` block; the kernel lets go of it when the process dies.

    Raises:
        UpdateError: another agent has it.
    """

    def __init__(self, updates: Path) -> None:
        self._updates = updates
        self._handle = -1

    def __enter__(self) -> Owner:
        self._handle = os.open(self._updates / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise UpdateError(f"{self._updates}: expected no other agent, got one that runs here") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
