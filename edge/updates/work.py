"""What the agent itself does of an update, stage by stage, between the cloud's word and the loop's.

    FETCHING      the files come down and are put together         -> VERIFIED
    VERIFIED      engines open, or are built, in a child process   -> BUILT
    BUILT         golden vectors, finite outputs, latency          -> SELF_TESTED
    SELF_TESTED   nothing more                                     -> SHADOWING
    SHADOWING     long enough, and the cloud says so               -> ARMED

It is done without holding the slots: a stop may come in between, and counts. Each may be cut off at any write and is
done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from edge.errors import UpdateError
from edge.updates import rules
from edge.updates.assignment import Assignment, Release
from edge.updates.install import Installer
from edge.updates.ledger import Ledger
from edge.updates.rules import Limits
from edge.updates.slots import Answer, Held, Slots, stage_name
from roadfuse.v1.updates_pb2 import Mode, Stage

_FETCHES: Final = 3  # of bytes that turned out not to be what was signed


class Tester(Protocol):
    """Builds and tries bundles away from the loop; edge/updates/selftest.py."""

    def is_whole(self, bundle: str) -> bool:
        """Whether its files are what its id says."""

    def build(self, bundle: str) -> None:
        """Make its engines ready for this device.

        Raises:
            UpdateError: why it is refused.
            OSError: trying again may help.
        """

    def test(self, bundle: str, active: str) -> None:
        """Golden vectors, finite outputs, the latency budget beside the active one's.

        Raises:
            UpdateError: why it is refused.
            OSError: trying again may help.
        """


class Work:
    """Of one agent.

    Args:
        change: writes slots that are wanted instead of those that were seen, unless others are there by now.
    """

    def __init__(
        self, ledger: Ledger, installer: Installer, tester: Tester, limits: Limits,
        change: Callable[[Slots, Slots], object],
    ) -> None:  # fmt: skip
        self._ledger, self._installer, self._tester = ledger, installer, tester
        self._limits, self._change = limits, change
        self._fetching: Slots | None = None

    def is_wanted(self) -> bool:
        """Whether what is being fetched still is; asked by the fetcher at each chunk."""
        return self._ledger.now is self._fetching

    def at(
        self, slots: Slots, answer: Answer | None, given: Assignment | None, *, is_fresh: bool
    ) -> Callable[[], None] | None:
        """The work at these slots, which raises OSError where trying again may help; None where others are next.

        Args:
            given: the last assignment.
            is_fresh: whether it is young enough to let a bundle take over.
        """
        staged = slots.staged
        if staged is None:
            return None
        release = given.release if given is not None else None
        if release is not None and release.bundle != staged.bundle:
            release = None
        if slots.stage == Stage.STAGE_FETCHING:
            return None if release is None else lambda: self._fetch(slots, release)
        if slots.stage == Stage.STAGE_VERIFIED:
            return lambda: self._build(slots, staged)
        if slots.stage == Stage.STAGE_BUILT:
            return lambda: self._test(slots, staged)
        if slots.stage == Stage.STAGE_SELF_TESTED:
            return lambda: self._go(slots, Stage.STAGE_SHADOWING)
        may_arm = release is not None and given is not None and given.mode == Mode.MODE_ACTIVATE and is_fresh
        if slots.stage == Stage.STAGE_SHADOWING and may_arm and rules.is_shadowed(slots, answer, self._limits):
            return lambda: self._arm(slots, staged)
        return None

    def _fetch(self, slots: Slots, release: Release) -> None:
        self._fetching = slots
        bases = [held.bundle for held in (slots.active, slots.previous) if held is not None]
        try:
            self._installer.install(release, bases)
        except UpdateError as error:  # bytes that were altered on the way are no fault of the release's
            if slots.tries + 1 >= _FETCHES:
                self._change(slots, rules.refused(slots, str(error), may_come_back=True))
                return
            self._change(slots, replace(slots, tries=slots.tries + 1))
            raise OSError(str(error)) from None
        self._go(slots, Stage.STAGE_VERIFIED)

    def _build(self, slots: Slots, staged: Held) -> None:
        if slots.tries == 0 and not self._tester.is_whole(staged.bundle):
            self._change(slots, rules.refused(slots, "expected a whole bundle on board, got a damaged one"))
            return
        self._try(slots, lambda: self._tester.build(staged.bundle), Stage.STAGE_BUILT)

    def _test(self, slots: Slots, staged: Held) -> None:
        self._try(slots, lambda: self._tester.test(staged.bundle, slots.active.bundle), Stage.STAGE_SELF_TESTED)

    def _try(self, slots: Slots, trial: Callable[[], None], then: int) -> None:
        """Counts before it tries, for what takes the whole machine with it never comes to counting afterwards."""
        if slots.tries >= self._limits.tries:
            why = f"did not survive {stage_name(slots.stage)}, {slots.tries} times"
            self._change(slots, rules.refused(slots, why))
            return
        if not self._ledger.change(slots, replace(slots, tries=slots.tries + 1)):
            return
        seen = self._ledger.now
        try:
            trial()
        except OSError:
            self._ledger.change(seen, replace(seen, tries=slots.tries))
            raise
        except UpdateError as error:
            self._change(seen, rules.refused(seen, str(error)))
            return
        self._go(seen, then)

    def _arm(self, slots: Slots, staged: Held) -> None:
        if self._tester.is_whole(staged.bundle):
            self._change(slots, rules.armed(slots))
            return
        why = "expected a whole bundle on board, got a damaged one"  # it was, when it was tested: the disk lost it
        self._change(slots, rules.refused(slots, why, may_come_back=True))

    def _go(self, slots: Slots, then: int) -> None:
        self._change(slots, replace(slots, stage=then, tries=0))
