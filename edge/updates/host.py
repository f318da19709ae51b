"""Bundles in the loop's process: what the slots say is opened beside the loop, handed over between frames, answered.

A thread looks at the slots, opens, and writes the answer; the loop never waits for it. The loop hears of a bundle by an
event in its inbox, after it was opened and warmed; by itself it only ever goes back to the previous one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.decision import Decision
from edge.errors import BundleError, RoadfuseError
from edge.feed import Fed
from edge.loop import Loop, LoopConfig
from edge.perception import Perception
from edge.realtime import ordinary
from edge.samples import BundleInUse
from edge.updates.boot import REFERENCE, answered, choose
from edge.updates.disk import Disk
from edge.updates.evidence import Evidence, messages, parsed
from edge.updates.shadow import Shadow
from edge.updates.slots import SLOTS, Answer, Slots, answer_record, folder_of, read_answer, read_slots
from edge.updates.swap import fed as swap_event
from edge.updates.witness import Witness
from roadfuse.v1.ingest_pb2 import ShadowOpinion
from roadfuse.v1.updates_pb2 import Stage

LOOK_S: Final = 0.1  # at the slots
TELL_S: Final = 5.0  # evidence, where nothing else changed
LIVED_S: Final = 10.0  # of a start, or a swap, that went well
_KEPT_S: Final = 2.0  # a bundle that nobody names any more, before it is closed
_MOST_WHY: Final = 300
_log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What the slots say, as far as it can be done.

    Attributes:
        run: bundle to decide.
        previous: to be kept open beside it; None where there is none.
        shadow: to decide in the shadow; None where there is none.
        why: as a drive records it.
    """

    run: str
    previous: str | None
    shadow: str | None
    why: str


class Takes(Protocol):
    """The loop's inbox."""

    def put(self, item: Fed) -> None:
        """Never blocks."""


def wanted(slots: Slots, running: str, is_out: Callable[[str], bool]) -> Wanted:
    """What to run; never what failed here, though the slots still name it.

    Args:
        is_out: whether a bundle was put back, or does not open.
    """
    active, staged = slots.active.bundle, slots.staged.bundle if slots.staged is not None else None
    if staged is not None and is_out(staged):
        staged = None
    if slots.stage == Stage.STAGE_ARMED and staged is not None:
        return Wanted(staged, None if is_out(active) else active, None, "armed")
    shadow = staged if slots.stage == Stage.STAGE_SHADOWING else None
    if is_out(active):
        return Wanted(running, None, shadow, "fallen back")
    previous = slots.previous.bundle if slots.previous is not None else None
    if previous == active or (previous is not None and is_out(previous)):
        previous = None
    return Wanted(active, previous, shadow, "active")


class Host:
    """Keeps one loop's bundles as the slots say.

    Args:
        disk: the updates' folder.
        say: takes a line about what can't be done.
        monotonic, utc_ns: clocks; no decision depends on them.

    Attributes:
        shadow: the staged bundle's, while it is to decide in the shadow.
    """

    def __init__(
        self, disk: Disk, config: LoopConfig, provider: str = "cpu", say: Callable[[str], object] = print,
        monotonic: Callable[[], float] = time.monotonic, utc_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self._disk, self._config, self._provider, self._say = disk, config, provider, say
        self._monotonic, self._utc_ns = monotonic, utc_ns
        self._record = answer_record(disk)
        self._version: tuple[object, ...] = ()
        self._bad: set[str] = set()  # bundles that do not open
        self._ids: dict[str, str] = {}  # as slots name it -> bundle id
        self._said: tuple[str, str | None] = ("", None)
        self._said_s = self._written_s = 0.0
        self._shadowed: dict[str, Evidence] = {}
        self._cores = os.sched_getaffinity(0)
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        self.shadow: Shadow | None = None

    def open(self, clock: Callable[[], int] | None = None) -> Loop:
        """Choose what to run, write that down, and open it.

        Args:
            clock: of the loop.

        Raises:
            BundleError: not even the reference bundle opens.
            OSError: not even that one can be read.
        """
        slots, before = self._read()
        while True:
            choice = choose(slots, before, self._is_whole)
            self._answer = self._told = answered(choice, slots, before, self._utc_ns())
            try:
                if not self._is_counted(slots, choice.bundle):
                    raise BundleError("it is on probation, and this start could not be written down")
                perception = self._opened(choice.bundle)
                break
            except (OSError, RoadfuseError) as error:
                if choice.bundle == REFERENCE:
                    raise
                self._bad.add(choice.bundle)
                self._say(f"{choice.bundle[:12]} does not open: {error}")
        if choice.why:
            self._say(choice.why)
        self._slots = slots or Slots()
        told = parsed(messages(self._answer.evidence))
        self._shadowed = {one.bundle: one for one in told if one.is_shadow}
        self._witness = Witness(self._slots.account_bytes, told, self._wake.set, self._cores)
        self._witness.know(choice.bundle, perception.bundle)
        self._witness.put_back = choice.put_back
        self._loop = Loop(
            perception.bundle, self._config, self._provider, clock, perception,
            time.thread_time_ns if self._provider == "cpu" else None,
        )  # fmt: skip
        return self._loop

    def begin(self, inbox: Takes, clock: Callable[[], int]) -> None:
        """Follow the slots from now on; what runs goes into the inbox before anything else.

        Args:
            clock: vehicle monotonic clock, ns.
        """
        self._inbox, self._clock = inbox, clock
        self._hand_over(self._answer.running, None, "start")
        self._witness.start()
        self._thread.start()

    def saw(self, batch: list[Fed], decisions: list[Decision]) -> None:
        """Take what the loop decided, and of what. Never blocks."""
        self._witness.saw(batch, decisions)

    def opinion(self, stamp_ns: int) -> ShadowOpinion | None:
        """What the staged bundle said of a frame; None where that is not known."""
        shadow = self.shadow
        return None if shadow is None else shadow.opinion(stamp_ns)

    def close(self) -> None:
        """The loop ended by itself: end everything, write the last answer."""
        self._is_closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._witness.close()
        self._end_shadow()
        try:
            self._answer_now(starts=0, is_due=True)
        except OSError as error:
            self._say(f"the last answer was not written: {error}")

    def _read(self) -> tuple[Slots | None, Answer | None]:
        """What the agent wants and what was answered last; a disk that can't be read has neither."""
        try:
            slots, before = read_slots(self._disk), read_answer(self._disk)
            self._record.read()
            return slots, before
        except RoadfuseError as error:  # both copies of the answer are damaged: one is written anew
            self._say(f"{error}")
            return slots, before
        except OSError as error:
            self._say(f"{error}")
            return None, None

    def _is_counted(self, slots: Slots | None, name: str) -> bool:
        """Whether the start is durable, for opening may be what kills; what is proven runs without that."""
        try:
            self._record.write(self._answer.to_bytes())
            return True
        except OSError as error:
            self._say(f"{error}")
            return slots is None or slots.stage != Stage.STAGE_PROBATION or name != slots.active.bundle

    def _run(self) -> None:
        ordinary(self._cores)
        while not self._is_closed:
            try:
                self._follow()
            except (OSError, RoadfuseError) as error:
                self._version = ()  # look again
                self._say(f"{error}")
            self._wake.wait(LOOK_S)
            self._wake.clear()

    def _follow(self) -> None:
        """Look once, do what is to be done, answer."""
        version = tuple(self._stamp(copy) for copy in "ab")
        if version != self._version:
            slots = read_slots(self._disk)
            if slots is not None and slots != self._slots:
                self._heed(slots)
            self._version = version
        want = wanted(self._slots, self._running, self._is_out)
        if (want.run, want.previous) != self._said:
            self._go(want)
        self._close_others()
        self._go_shadow(want.shadow)
        has_lived = self._monotonic() - self._said_s > LIVED_S and self._witness.frames > 0
        self._answer_now(starts=0 if has_lived else self._answer.starts)

    def _heed(self, slots: Slots) -> None:
        """Other slots than before."""
        named = {one.bundle for one in (slots.active, slots.previous, slots.staged) if one is not None}
        changes: dict[str, Any] = {}
        if slots.epoch != self._slots.epoch:
            changes = {"epoch": slots.epoch, "trouble": "", "starts": 0}
            self._bad &= named
        back = self._witness.put_back
        if back is not None and back.bundle not in named:  # the agent wrote it down
            self._witness.put_back = None
        if slots.account != self._slots.account:
            self._witness.begin_anew(slots.account_bytes)
            self._shadowed = {}
        try:
            self._answer_now(is_due=bool(changes), **changes)  # opening what is armed may be what kills
        except OSError as error:
            if slots.stage == Stage.STAGE_ARMED:
                raise
            self._say(f"{error}")  # a way back does not wait for the disk
        self._slots = slots

    def _go(self, want: Wanted) -> None:
        """Open what is wanted and hand it to the loop."""
        previous = want.previous
        if previous is not None and not self._is_open(previous, is_needed=False):
            previous = None
        if self._is_open(want.run) and (want.run, previous) != self._said:
            self._hand_over(want.run, previous, want.why)

    def _hand_over(self, run: str, previous: str | None, why: str) -> None:
        in_use = BundleInUse(self._ids[run], "" if previous is None else self._ids[previous], why)
        self._said, self._said_s = (run, previous), self._monotonic()
        self._inbox.put(swap_event(in_use, self._clock()))
        _log.info("bundle_in_use id=%s previous=%s why=%s", run[:12], (previous or "")[:12], why)

    def _is_open(self, name: str, *, is_needed: bool = True) -> bool:
        """Whether the bundle is open, now that it was tried; says why not, to the agent where it is needed."""
        if name in self._ids and self._loop.charge.bundles.get(self._ids[name]) is not None:
            return True
        try:
            perception = self._opened(name)
        except (OSError, RoadfuseError) as error:
            self._bad.add(name)
            self._say(f"{name[:12]} does not open: {error}")
            if is_needed:
                self._answer_now(trouble=f"does not open: {error}"[:_MOST_WHY])
            return False
        self._witness.know(name, perception.bundle)
        self._loop.charge.bundles.hold(perception)
        return True

    def _opened(self, name: str) -> Perception:
        bundle = self._load(name)
        self._ids[name] = bundle.id
        return Perception(bundle, self._config.streams, self._provider)

    def _load(self, name: str) -> Bundle:
        bundle = bundles.load(None if name == REFERENCE else self._disk.path(folder_of(name)))
        if name not in (REFERENCE, bundle.id):
            raise BundleError(f"{bundle.path}: expected the bundle {name[:12]}, got {bundle.id[:12]}")
        return bundle

    def _is_whole(self, name: str) -> bool:
        try:
            return name not in self._bad and bool(self._load(name).id)
        except (OSError, RoadfuseError):  # a file that can't be read is one that is not there
            return False

    def _is_out(self, name: str) -> bool:
        back = self._witness.put_back
        return name in self._bad or (back is not None and back.bundle == name != REFERENCE)

    @property
    def _running(self) -> str:
        return self._answer.running if self._witness.running is None else self._witness.running

    def _close_others(self) -> None:
        """Close what nobody names any more; engines are freed here, not in the loop's thread."""
        is_settled = self._running == self._said[0] and self._monotonic() - self._said_s > _KEPT_S
        if is_settled:
            named = {self._ids[name] for name in self._said if name is not None}
            for bundle_id in self._loop.charge.bundles.ids():
                if bundle_id not in named:
                    self._loop.charge.bundles.drop(bundle_id)

    def _go_shadow(self, name: str | None) -> None:
        shadow = self.shadow
        if shadow is not None and shadow.bundle != name:
            self._end_shadow()
            shadow = None
        if name is None:
            return
        if shadow is None:
            account = self._slots.account_bytes
            evidence = self._shadowed.get(name)
            if evidence is None or evidence.account != account:
                evidence = Evidence(name, True, account)
            folder = None if name == REFERENCE else self._disk.path(folder_of(name))
            self.shadow = self._witness.shadow = Shadow(folder, self._config, self._provider, evidence)
            return
        shadow.check()
        if shadow.trouble and not self._answer.trouble:
            self._say(f"{name[:12]} in the shadow: {shadow.trouble}")
            self._answer_now(trouble=f"in the shadow: {shadow.trouble}"[:_MOST_WHY])

    def _end_shadow(self) -> None:
        shadow, self.shadow, self._witness.shadow = self.shadow, None, None
        if shadow is not None:
            shadow.close()
            self._shadowed = {shadow.bundle: shadow.evidence}

    def _answer_now(self, *, is_due: bool = False, **changes: Any) -> None:
        """Answer what is; durable where it is news, or where evidence is due.

        Raises:
            OSError: the disk refused; it is tried again at the next look.
        """
        shadow = self.shadow
        shadowed = {**self._shadowed, **({} if shadow is None else {shadow.bundle: shadow.evidence})}
        told = [one.message().SerializeToString(deterministic=True) for one in shadowed.values()]
        values: dict[str, Any] = {
            "running": self._running,
            "put_back": self._witness.put_back,
            "shadow": shadow.bundle if shadow is not None and shadow.is_ready else None,
            **changes,
        }
        self._answer = replace(self._answer, **values)
        now_s = self._monotonic()
        if is_due or self._answer != self._told or now_s - self._written_s > TELL_S:
            evidence = tuple(one.hex() for one in (*self._witness.evidence(), *told))
            answer = replace(self._answer, at_ns=self._utc_ns(), evidence=evidence)
            self._record.write(answer.to_bytes())
            self._told, self._written_s = self._answer, now_s

    def _stamp(self, copy: str) -> object:
        try:
            stat = self._disk.path(f"{SLOTS}.{copy}").stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
