"""Bundles that are open side by side, and the event that says which of them decides.

The loop only ever changes from one that is open, warm and whole to another; who opens them does so beside it.
"""

from __future__ import annotations

from edge.drive import topics
from edge.drive.reader import DriveMessage
from edge.feed import Fed
from edge.perception import Perception
from edge.samples import NOT_FUSED, BundleInUse, Event
from edge.updates.in_use import in_use_bytes


class OpenBundles:
    """Bundles by id, open and warm. One thread adds and drops them, the loop's thread looks them up."""

    def __init__(self, first: Perception) -> None:
        self._open = {first.bundle.id: first}

    def hold(self, perception: Perception) -> None:
        """Have one more; before the event that names it."""
        self._open[perception.bundle.id] = perception

    def drop(self, bundle_id: str) -> None:
        """Let one go that no event names any more; engines are freed in the thread that calls this."""
        self._open.pop(bundle_id, None)

    def get(self, bundle_id: str) -> Perception | None:
        """The bundle of that id; None where it is not open."""
        return self._open.get(bundle_id)

    def ids(self) -> list[str]:
        """Of all that are open."""
        return list(self._open)


def fed(in_use: BundleInUse, now_ns: int) -> Fed:
    """A swap as an event of the loop, and the message that records it.

    Args:
        now_ns: vehicle monotonic clock.
    """
    payload = in_use_bytes(in_use)
    message = DriveMessage(now_ns, 0, 0, now_ns, topics.BUNDLE, payload)
    return Fed(Event(now_ns, NOT_FUSED, in_use, len(payload)), message)
