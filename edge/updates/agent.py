"""The update agent: one step at a time towards what the cloud assigned, and back at the first sign of harm.

    IDLE -> FETCHING -> VERIFIED -> BUILT -> SELF_TESTED -> SHADOWING -> ARMED -> PROBATION -> CONFIRMED -> IDLE
            any of them -> REFUSED, with why

A step looks at what is (slots, the loop's answer, the last assignment) and does the next thing; each may be cut off at
any write and is done again by the next step, or the next process. The rules are in edge/updates/rules.py.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from edge.errors import UpdateError
from edge.updates import operator, rules
from edge.updates.assignment import Assignment, Cloud
from edge.updates.disk import Disk
from edge.updates.install import Fetches, Installer
from edge.updates.ledger import Ledger
from edge.updates.rules import Limits
from edge.updates.slots import Answer, Slots, read_answer, stage_name
from edge.updates.troubles import Troubles
from edge.updates.work import Tester, Work
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import Stage

_LOOK_S: Final = 0.5  # at the loop's answer
_AGAIN_S: Final = 5.0  # after the disk refused
_TIDY_AGAIN_S: Final = 60.0
_LEAST_CONTACT_S: Final = 1.0
_MOST_CONTACT_S: Final = 86_400.0
_FIRST_RETRY_S: Final = 2.0
_MOST_RETRY_S: Final = 600.0
# How soon the cloud hears of a change that its rules wait for.
_TELL_WITHIN_S: Final = 20.0
_WORTH_TELLING: Final = (
    Stage.STAGE_SHADOWING, Stage.STAGE_PROBATION, Stage.STAGE_CONFIRMED, Stage.STAGE_REFUSED,
)  # fmt: skip
# What may be troubled.
_START: Final = "start"
_DISK: Final = "disk"
_TIDYING: Final = "tidying"
_CHECK_IN: Final = "check-in"
_WORK: Final = "work"
_STOP: Final = "stop"
_log = logging.getLogger(__name__)


class Clock(Protocol):
    """Time."""

    def monotonic_s(self) -> float:
        """Never goes back."""

    def utc_ns(self) -> int:
        """By the vehicle's clock: metadata, believed by nobody."""


class Trusts(Protocol):
    """Believes answers, or not; edge/updates/trust.py."""

    def nonce(self) -> bytes:
        """Of the next check-in; new each time."""

    def verified(self, response: updates_pb2.CheckInResponse, cloud: Cloud, nonce: bytes, floor: int) -> Assignment:
        """What both repositories agree on.

        Raises:
            UpdateError: it can't be believed.
            OSError: metadata did not come; trying again may help.
        """


Introduces = Callable[[Slots, bytes, Answer | None], updates_pb2.CheckInRequest]


class Agent:
    """The agent of one vehicle.

    Args:
        disk: of the updates' folder.
        introduce: slots, nonce and the loop's answer -> the request of a check-in, its manifest signed.
        chance: uniform in 0..1; spreads retries.
        reference: files of the bundle that comes with roadfuse, by SHA-256, as the disk names them.
        changed: told after each change of the slots.
    """

    def __init__(
        self, disk: Disk, trust: Trusts, cloud: Cloud, fetcher: Fetches, tester: Tester, clock: Clock,
        introduce: Introduces, limits: Limits | None = None, *,
        chance: Callable[[], float] = lambda: 0.5, changed: Callable[[], object] = lambda: None,
        reference: Mapping[bytes, str] | None = None,
    ) -> None:  # fmt: skip
        self._disk, self._trust, self._cloud, self._clock = disk, trust, cloud, clock
        self._introduce, self._limits = introduce, limits or Limits()
        self._chance, self._changed = chance, changed
        self._ledger = Ledger(disk, clock.utc_ns)
        self._installer = Installer(disk, fetcher, reference)
        self._work = Work(self._ledger, self._installer, tester, self._limits, self._change)
        self._assignment: Assignment | None = None
        self._assigned_s = self._due_s = clock.monotonic_s()
        self._not_before_s = self._due_s  # work that failed is tried again then
        self._failures = self._work_failures = 0
        self._tidy_for: tuple[set[str], bool] | None = None
        self._tidy_again_s = math.inf
        self._troubles = Troubles()
        if self._ledger.trouble:
            self._troubles.begin(_START, self._ledger.trouble)

    @property
    def slots(self) -> Slots:
        """As they are, durably."""
        return self._ledger.now

    @property
    def trouble(self) -> str:
        """What does not go through just now; "" where all does."""
        return str(self._troubles)

    def answer(self) -> Answer | None:
        """What the loop last said."""
        return read_answer(self._disk)

    def stop(self, number: int, bundles: Iterable[str]) -> bool:
        """Heed a broker's stop notice, at once and durably; from any thread.

        Returns:
            Whether it changed anything.

        Raises:
            OSError: the disk refused.
        """
        try:
            is_new = self._apply(lambda slots: rules.heed_stop(slots, number, bundles, is_signed=False))
        except OSError as error:
            self._troubles.begin(_STOP, f"stop {number}: not durable yet: {error}")
            raise
        self._troubles.end(_STOP)
        return is_new

    def hint(self, within_s: float = 0.0) -> None:
        """The cloud has something: check in within so long, spread by chance."""
        self._due_s = min(self._due_s, self._clock.monotonic_s() + within_s * self._chance())

    def is_wanted(self) -> bool:
        """Whether what is being fetched still is; asked by the fetcher at each chunk. An operator comes first."""
        return self._work.is_wanted() and not operator.is_waiting(self._disk)

    def is_checked_in(self) -> bool:
        """Whether the last check-in went through and none is due."""
        return self._failures == 0 and self._due_s > self._clock.monotonic_s()

    def is_at_rest(self) -> bool:
        """Whether nothing is to be done before the loop or the cloud says something."""
        return self._todo(self.answer()) is None

    def step(self) -> float:
        """Do the next thing; what the disk or the cloud refuses is trouble, and tried again.

        Returns:
            When to come again, s; 0: there is more.
        """
        answer, is_well = None, False
        try:
            answer = self.answer()
            if self._heed(answer):
                return 0.0
            self._tidy(answer)
            is_well = True
            self._troubles.end(_DISK)
        except OSError as error:  # the cloud is to hear of it all the same
            self._troubles.begin(_DISK, f"disk: {error}")
        if self._clock.monotonic_s() >= self._due_s:
            self._check_in(answer)
            return 0.0
        if is_well and self._go_on(answer):
            return 0.0
        return max(0.0, min(_LOOK_S if is_well else _AGAIN_S, self._due_s - self._clock.monotonic_s()))

    def _heed(self, answer: Answer | None) -> bool:
        """An operator on the vehicle first, then the loop; whether anything was heeded."""
        if operator.heed(self._disk, self._apply):
            self.hint()
            return True
        return self._apply(lambda slots: rules.heed_answer(slots, answer, self._limits))

    def _apply(self, rule: Callable[[Slots], Slots | None]) -> bool:
        before = self._ledger.now
        after = self._ledger.apply(rule)
        if after is None:
            return False
        self._moved(before, after)
        return True

    def _change(self, seen: Slots, wanted: Slots) -> None:
        if self._ledger.change(seen, wanted):
            self._moved(seen, self._ledger.now)

    def _moved(self, before: Slots, after: Slots) -> None:
        self._work_failures, self._not_before_s = 0, self._clock.monotonic_s()
        if before.stage != after.stage:
            _log.info("update_stage stage=%s%s", stage_name(after.stage), f" why={after.why}" if after.why else "")
            if after.stage in _WORTH_TELLING:
                self.hint(_TELL_WITHIN_S)
        self._changed()

    def _check_in(self, answer: Answer | None) -> None:
        slots = self._ledger.now
        try:
            self._take(slots, self._asked(slots, answer))
        except (UpdateError, OSError) as error:
            self._failures += 1
            self._due_s = self._clock.monotonic_s() + self._retry_s(self._failures)
            self._troubles.begin(_CHECK_IN, f"check-in: {error}")
            return
        self._failures = 0
        self._troubles.end(_CHECK_IN)
        self._troubles.end(_START)

    def _asked(self, slots: Slots, answer: Answer | None) -> Assignment:
        """What the cloud answers, believed."""
        nonce = self._trust.nonce()
        response = self._cloud.check_in(self._introduce(slots, nonce, answer))
        try:
            return self._trust.verified(response, self._cloud, nonce, slots.highest_counter)
        except UpdateError as error:
            believed = getattr(error, "assignment", None)  # the director's answer was good, its release was not
            if believed is not None:
                self._heed_stops(slots, believed)
            raise

    def _take(self, slots: Slots, given: Assignment) -> None:
        """Heed an assignment, stops first."""
        contact_s = min(max(given.next_contact_s, _LEAST_CONTACT_S), _MOST_CONTACT_S)
        now_s = self._clock.monotonic_s()
        self._due_s = now_s + contact_s
        self._heed_stops(slots, given)
        self._assignment, self._assigned_s = given, now_s
        if slots.stage == Stage.STAGE_CONFIRMED:  # which the cloud knows now
            self._apply(lambda now: replace(now, stage=Stage.STAGE_IDLE) if now is slots else None)
        if self._apply(lambda now: self._assigned(now, given)):
            self._apply(lambda now: self._assigned(now, given))  # the one before was dropped, this one is taken

    def _heed_stops(self, asked: Slots, given: Assignment) -> None:
        def rule(now: Slots) -> Slots | None:
            unknown = [one for one in now.stopped if one not in asked.stopped]
            return rules.heed_stop(now, given.stop_number, given.stopped, is_signed=True, unknown=unknown)

        self._apply(rule)

    @staticmethod
    def _assigned(slots: Slots, given: Assignment) -> Slots | None:
        wanted = rules.heed_assignment(slots, given)
        if wanted is not None and wanted.stage == Stage.STAGE_FETCHING != slots.stage:
            return replace(wanted, account=secrets.token_hex(8))  # evidence of another update begins anew
        return wanted

    def _todo(self, answer: Answer | None) -> Callable[[], None] | None:
        is_fresh = self._clock.monotonic_s() - self._assigned_s <= self._limits.arm_within_s
        return self._work.at(self._ledger.now, answer, self._assignment, is_fresh=is_fresh)

    def _go_on(self, answer: Answer | None) -> bool:
        """Do the work of this stage, where it is time; whether there was any."""
        stage, todo = stage_name(self._ledger.now.stage), self._todo(answer)
        if todo is None:
            self._troubles.end(_WORK)
            return False
        if self._clock.monotonic_s() < self._not_before_s:
            return False
        try:
            todo()
            self._troubles.end(_WORK)
        except OSError as error:
            self._work_failures += 1
            again_s = float(getattr(error, "again_in_s", self._retry_s(self._work_failures)))
            self._not_before_s = self._clock.monotonic_s() + min(again_s, _MOST_RETRY_S)
            self._troubles.begin(_WORK, f"{stage}: {error}")
        return True

    def _tidy(self, answer: Answer | None) -> None:
        """Bundles in no slot go, but for what the loop still runs; parts go when nothing is fetched."""
        slots = self._ledger.now
        held = {one.bundle for one in (slots.active, slots.previous, slots.staged) if one is not None}
        if answer is not None:
            held |= {answer.running, answer.shadow or ""}
        is_fetching = slots.stage == Stage.STAGE_FETCHING
        if self._tidy_for == (held, is_fetching) and self._clock.monotonic_s() < self._tidy_again_s:
            return
        self._tidy_for = (held, is_fetching)
        try:
            self._installer.tidy(held, keeps_parts=is_fetching)
            self._tidy_again_s = math.inf
            self._troubles.end(_TIDYING)
        except OSError as error:
            self._tidy_again_s = self._clock.monotonic_s() + _TIDY_AGAIN_S
            self._troubles.begin(_TIDYING, f"tidying: {error}")

    def _retry_s(self, failures: int) -> float:
        longest = min(_FIRST_RETRY_S * 2.0 ** min(failures - 1, 20), _MOST_RETRY_S)
        return longest * (0.5 + 0.5 * self._chance())
