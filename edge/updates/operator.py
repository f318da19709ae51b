"""What an operator on the vehicle asks of an agent that runs: a file that names the bundle to leave.

It names it, so that a wish that is heeded twice, over a power cut, does not also leave the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.updates.disk import Disk

WISH: Final = "back.wish"
_NEW: Final = "back.new"


def ask(disk: Disk, bundle: str) -> None:
    """Have this bundle left; durable when this returns.

    Raises:
        OSError: the disk refused.
    """
    disk.write(_NEW, bundle.encode())
    disk.sync(_NEW)
    disk.rename(_NEW, WISH)
    disk.sync_folder("")


def is_asked(disk: Disk) -> bool:
    """Whether a wish waits."""
    return disk.size(WISH) is not None


def heed(disk: Disk, active: str, put_back: Callable[[], object]) -> None:
    """Do what is asked, if it still makes sense, and forget it.

    Raises:
        OSError: the disk refused.
    """
    if is_asked(disk):
        if disk.read(WISH) == active.encode():
            put_back()
        disk.remove(WISH)
