"""The agent's hand on the slots: one writer, each change durable before it is spoken of, none over another's head.

A change names the slots that it was thought out on. Where a stop came in between (the line's thread writes it at once,
whatever the agent is busy with), the change is void, and its maker looks again.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace

from edge.errors import UpdateError
from edge.updates.disk import Disk
from edge.updates.record import Record
from edge.updates.slots import BUNDLES, Slots, kept_record, read_answer, slots_record
from roadfuse.v1.updates_pb2 import Stage


class Ledger:
    """The slots, of the one agent that writes them.

    Args:
        now_ns: UTC by the vehicle's clock, for `since_ns`.

    Attributes:
        trouble: what was wrong with the records at the start; "" where nothing was.

    Raises:
        OSError: the disk can't be read or written.
    """

    def __init__(self, disk: Disk, now_ns: Callable[[], int]) -> None:
        self._disk, self._now_ns = disk, now_ns
        self._record, self._kept = slots_record(disk), kept_record(disk)
        self._lock = threading.RLock()
        self.trouble = ""
        self._failure: OSError | None = None
        slots, kept = self._read(self._record), self._read(self._kept)
        if slots is not None and kept is not None and self._record.unread and kept.epoch > slots.epoch:
            slots = None  # an older copy
        if slots is None and kept is None and self._failure is not None:
            raise self._failure
        self._kept.hold()
        self._record.hold()
        if slots is None:
            slots = self._recovered(kept)
            self._write(slots)
        self._slots = slots

    @property
    def now(self) -> Slots:
        """As they are."""
        return self._slots

    def change(self, seen: Slots, wanted: Slots) -> bool:
        """Write what is wanted instead of what was seen, unless something else is there by now.

        Returns:
            Whether it is durable.

        Raises:
            OSError: the disk refused; what was there counts.
            UpdateError: no slots that can be read back; likewise.
        """
        with self._lock:
            if self._slots is not seen:
                return False
            moved = wanted.stage != seen.stage
            changed = replace(
                wanted, epoch=seen.epoch + 1, since_ns=max(0, self._now_ns()) if moved else seen.since_ns
            )  # fmt: skip
            self._write(changed)
            self._slots = changed
            return True

    def apply(self, rule: Callable[[Slots], Slots | None]) -> Slots | None:
        """What a rule makes of the slots, written; nothing gets in between. None where it asks for no change.

        Raises:
            OSError: the disk refused; what was there counts.
            UpdateError: no slots that can be read back; likewise.
        """
        with self._lock:
            wanted = rule(self._slots)
            if wanted is not None:
                self.change(self._slots, wanted)
                return self._slots
            return None

    def _write(self, slots: Slots) -> None:
        content = slots.to_bytes()
        Slots.of(content)  # what can't be read back replaces nothing
        self._kept.write(content)
        self._record.write(content)

    def _read(self, record: Record) -> Slots | None:
        try:
            content = record.read()
            return None if content is None else Slots.of(content)
        except UpdateError as error:
            self.trouble = str(error)
        except OSError as error:
            self.trouble, self._failure = str(error), error
        return None

    def _recovered(self, kept: Slots | None) -> Slots:
        """The first slots of a vehicle, or safe ones where they were lost: nothing new, nothing refused comes back."""
        if kept is not None:
            self.trouble = self.trouble or "slots: expected a record, got none"
            is_under_way = kept.staged is not None or kept.stage == Stage.STAGE_FETCHING
            return replace(
                kept, epoch=kept.epoch + 1, staged=None, tries=0, why=self.trouble,
                stage=Stage.STAGE_REFUSED if is_under_way else kept.stage,
            )  # fmt: skip
        answer = read_answer(self._disk)
        # the loop may have begun first; it follows no slots then, and nothing was ever fetched
        is_followed = answer is not None and answer.epoch > 0
        is_first = not (is_followed or self.trouble or self._disk.list(BUNDLES))
        return Slots(
            epoch=1 + (answer.epoch if answer is not None else 0),
            stage=Stage.STAGE_IDLE,
            why="" if is_first else "the slots were lost: the reference bundle runs",
            account=secrets.token_hex(8),
        )
