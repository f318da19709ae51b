"""Takes what the loop decided, beside it: exposure, failures, and what the shadow is to decide too.

It has a thread and a bounded queue of its own. Where that is full the oldest goes and is counted; evidence then lacks
some frames, and the shadow has a gap.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

from edge.bundle import Bundle
from edge.decision import Decision
from edge.drive.reader import DriveMessage
from edge.feed import Fed
from edge.realtime import ordinary
from edge.updates.account import Account
from edge.updates.evidence import Evidence
from edge.updates.health import STEP
from edge.updates.opinion import Opinion, is_over, opinion_of
from edge.updates.shadow import Shadow
from edge.updates.slots import PutBack

_PASSED: Final = 256  # batches of about a frame
_DRAIN_S: Final = 0.02
_log = logging.getLogger(__name__)


class Witness:
    """Of one loop.

    Args:
        account: name of the evidence.
        so_far: evidence of earlier processes.
        changed: called where another bundle decides than before.
        cores: that this process may use.

    Attributes:
        running: bundle that decided last, as slots name it; None before the first decision.
        put_back: the last one.
        shadow: that is fed.
        dropped: batches that the queue had no room for.
        frames: decisions taken.
    """

    def __init__(
        self, account: bytes, so_far: Iterable[Evidence], changed: Callable[[], object], cores: Collection[int] = (),
    ) -> None:  # fmt: skip
        self._lock = threading.Lock()
        self._account = Account(account, so_far)
        self._changed, self._cores = changed, cores
        self._passed: deque[tuple[list[DriveMessage], list[Decision]]] = deque(maxlen=_PASSED)
        self._known: dict[str, tuple[str, Bundle]] = {}  # by bundle id: as slots name it
        self._next_index = 0
        self._period_ns = self._last_stamp_ns = 0
        self._is_closed = False
        self.running: str | None = None
        self.put_back: PutBack | None = None
        self.shadow: Shadow | None = None
        self.dropped = self.frames = 0
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def know(self, name: str, bundle: Bundle) -> None:
        """A bundle that may decide, and how slots name it."""
        self._known[bundle.id] = name, bundle

    def saw(self, batch: list[Fed], decisions: list[Decision]) -> None:
        """Take what the loop decided, and of what. Never blocks."""
        if len(self._passed) == _PASSED:
            self.dropped += 1
        self._passed.append(([fed.message for fed in batch], decisions))

    def begin_anew(self, account: bytes) -> None:
        """Another account."""
        with self._lock:
            self._account = Account(account)

    def evidence(self) -> list[bytes]:
        """Of the bundles that decided, serialised."""
        with self._lock:
            return [one.message().SerializeToString(deterministic=True) for one in self._account.all()]

    def close(self) -> None:
        """Take what is left."""
        self._is_closed = True
        if self._thread.is_alive():
            self._thread.join()
        self._drain()

    def _run(self) -> None:
        ordinary(self._cores)
        while not self._is_closed:
            time.sleep(_DRAIN_S)
            try:
                self._drain()
            except Exception:  # at the thread's top: evidence lacks a frame
                _log.exception("frame_not_taken")

    def _drain(self) -> None:
        while self._passed:
            messages, decisions = self._passed.popleft()
            is_gap = bool(decisions) and decisions[0].index != self._next_index
            opinions = [self._take(decision) for decision in decisions]
            shadow = self.shadow
            if shadow is not None:
                shadow.offer(messages, opinions, is_after_gap=is_gap)

    def _take(self, decision: Decision) -> Opinion:
        self._next_index = decision.index + 1
        self.frames += 1
        name, bundle = self._known[decision.bundle_id]
        if decision.stamp_ns > self._last_stamp_ns > 0:
            self._period_ns = decision.stamp_ns - self._last_stamp_ns
        self._last_stamp_ns = decision.stamp_ns
        is_late = self._period_ns > 0 and is_over(decision.timings_ns.get(STEP, 0), self._period_ns)
        opinion = opinion_of(decision, bundle, is_late=is_late)
        back = decision.put_back
        failed = None if back is None else self._known[back.bundle_id][0]
        with self._lock:
            self._account.add(decision, opinion, name, failed)
        if back is not None and failed is not None:
            self.put_back = PutBack(failed, back.why[:300], decision.index)
        if name != self.running or back is not None:
            self.running = name
            self._changed()
        return opinion
