"""One agent at a time has a folder of updates, and leaves a word there of what is not well."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge.errors import UpdateError

LOCK: Final = "agent.lock"
_WORD_BYTES: Final = 1024


class AgentRuns(UpdateError):
    """Another process has the folder."""


class Owner:
    """Holds the folder while in a `with` block; the kernel lets go of it when the process dies.

    Raises:
        AgentRuns: another agent has it.
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
            raise AgentRuns(f"{self._updates}: expected no other agent, got one that runs here") from None
        self.say("")
        return self

    def __exit__(self, *_: object) -> None:
        self.say("")
        os.close(self._handle)

    def say(self, trouble: str) -> None:
        """Leave a word for `said`: always as long, so that a disk that has become full still has the room for it."""
        with suppress(OSError):  # the journal has it, and the cloud
            os.pwrite(self._handle, trouble.encode()[:_WORD_BYTES].ljust(_WORD_BYTES), 0)


def said(updates: Path) -> str:
    """What was not well when the folder's agent last spoke of it; "" where all was, or nothing can be read."""
    try:
        with (updates / LOCK).open("rb") as file:
            return file.read(_WORD_BYTES).decode(errors="ignore").strip(" \0")
    except OSError:
        return ""
