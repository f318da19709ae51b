"""What does not go through on a vehicle: known while it lasts to whoever asks, and told to the journal once.

The agent keeps it in memory, for a disk that takes nothing can't keep it. It goes along with each report and each
check-in, and lies, as far as that can be written, where `roadfuse update status` finds it (edge/updates/owner.py).
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from edge.errors import one_line
from edge.updates.slots import Answer, Slots

_MOST_LINE: Final = 240
_MOST_WHY: Final = 1000  # what the cloud takes
_log = logging.getLogger(__name__)


class Troubles:
    """Of one agent: what was tried, and why it did not go through; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, str] = {}

    def __str__(self) -> str:
        """All that last; "" where all is well."""
        with self._lock:
            return "; ".join(self._lines.values())

    def begin(self, what: str, line: str) -> None:
        """It did not go through; `line` says what and why."""
        line = one_line(line)[:_MOST_LINE]
        with self._lock:
            was = self._lines.get(what)
            self._lines[what] = line
        if line != was:
            _log.warning("update_trouble %s", line)

    def end(self, what: str) -> None:
        """It went through, or is not tried any more."""
        with self._lock:
            was = self._lines.pop(what, None)
        if was is not None:
            _log.info("update_trouble_over %s", was)


def of_both(agents: str, answer: Answer | None) -> str:
    """The agent's troubles and the loop's; "" where all is well."""
    loops = f"loop: {answer.trouble}" if answer is not None and answer.trouble else ""
    return "; ".join(one for one in (agents, loops) if one)


def told_why(slots: Slots, answer: Answer | None, agents: str) -> str:
    """What the cloud shows people of a vehicle: why the last update ended, and what is not well."""
    trouble = of_both(agents, answer)
    return "; ".join(one for one in (slots.why, f"trouble: {trouble}" if trouble else "") if one)[:_MOST_WHY]
