"""What an operator on the vehicle wants: carried out here where no agent runs, else left for the agent in a file.

    back.wish     the active bundle is to be left for the previous one
    pardon.wish   a refused bundle may be taken again

A wish names its bundle, so that one that is heeded twice, over a power cut, changes nothing the second time; and it is
durably gone before anything else happens, so that it does not speak of what comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.updates import rules
from edge.updates.disk import Disk
from edge.updates.slots import Slots

BACK: Final = "back"
PARDON: Final = "pardon"
_RULES: Final = {BACK: rules.operators_back, PARDON: rules.pardoned}
Rule = Callable[[Slots], "Slots | None"]


def rule_of(what: str, bundle: str) -> Rule:
    """What becomes of the slots when a wish is carried out."""
    return lambda slots: _RULES[what](slots, bundle)


def ask(disk: Disk, what: str, bundle: str) -> None:
    """Leave a wish for the agent; durable when this returns.

    Raises:
        OSError: the disk refused.
    """
    new = f"{what}.new"
    disk.write(new, bundle.encode())
    disk.sync(new)
    disk.rename(new, _wish(what))
    disk.sync_folder("")


def is_asked(disk: Disk, what: str) -> bool:
    """Whether a wish waits."""
    return disk.size(_wish(what)) is not None


def is_waiting(disk: Disk) -> bool:
    """Whether any wish waits."""
    return any(is_asked(disk, what) for what in _RULES)


def heed(disk: Disk, apply: Callable[[Rule], object]) -> bool:
    """Do what is asked, if it still makes sense, and forget it.

    Args:
        apply: has a rule make of the slots what it makes of them.

    Returns:
        Whether anything was.

    Raises:
        OSError: the disk refused.
    """
    asked = [what for what in _RULES if is_asked(disk, what)]
    for what in asked:
        apply(rule_of(what, disk.read(_wish(what)).decode(errors="replace")))
        disk.remove(_wish(what))
        disk.sync_folder("")
    return bool(asked)


def _wish(what: str) -> str:
    return f"{what}.wish"
