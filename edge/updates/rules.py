"""What becomes of the slots: pure rules over slots and the loop's answer, an assignment, a stop, an operator's word.

Each takes slots and gives the slots that should be (None where they are as they should be), and touches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from edge.updates.assignment import Assignment, Release
from edge.updates.boot import NOT_WHOLE
from edge.updates.evidence import ALL, FAILURES, Count, messages, parsed
from edge.updates.slots import Answer, Held, Refusal, Slots
from roadfuse.v1.updates_pb2 import Mode, Stage

_ID: Final = re.compile(r"[0-9a-f]{64}")
# Nothing is under way: a release may be taken.
AT_REST: Final = (Stage.STAGE_UNSPECIFIED, Stage.STAGE_IDLE, Stage.STAGE_CONFIRMED, Stage.STAGE_REFUSED)
MOST_STOPPED: Final = 4096
# As of every count that is signed; the wire holds numbers with which slots could not be read back.
MOST_STOP_NUMBER: Final = 1 << 53
# In the shadow a bundle is second in the queue for the processor: being late there is judged by its share of frames.
_OF_ITS_OWN: Final = tuple(name for name in FAILURES if name != "late")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things are watched.

    Attributes:
        shadow_s: exposed in the shadow before a bundle may take over.
        shadow_frames: likewise.
        shadow_late: largest share of the shadow's frames that are late.
        probation_s: exposed in probation before a bundle is confirmed.
        arm_within_s: how old the cloud's word may be that lets a bundle take over.
        tries: of building and self-testing that may end with the agent dead.
    """

    shadow_s: float = 600.0
    shadow_frames: int = 1000
    shadow_late: float = 0.05
    probation_s: float = 1800.0
    arm_within_s: float = 86_400.0
    tries: int = 8


def heed_answer(slots: Slots, answer: Answer | None, limits: Limits) -> Slots | None:
    """What follows from what the loop says: a put back first, whatever the epoch, for the agent must hear of it."""
    if answer is None:
        return None
    back = answer.put_back
    if back is not None and back.bundle and back.bundle == slots.active.bundle:
        # the disk may have lost it
        failed = Refusal(slots.active.bundle, slots.active.counter, f"put back: {back.why}", back.why == NOT_WHOLE)
        return fallen_back(slots, failed, answer.running)
    staged = slots.staged
    if staged is not None and slots.stage in (Stage.STAGE_SHADOWING, Stage.STAGE_ARMED):
        # before it was armed, an older word is of a life of the same bundle that was pardoned
        is_of_now = answer.epoch == slots.epoch or slots.stage == Stage.STAGE_ARMED
        if back is not None and back.bundle == staged.bundle and is_of_now:
            return refused(slots, f"put back: {back.why}")
        if answer.epoch == slots.epoch and answer.trouble and answer.running == slots.active.bundle:
            return refused(slots, answer.trouble)
        why = _failure_in_shadow(slots, answer, limits)
        if why:
            return refused(slots, why)
    if answer.epoch != slots.epoch:
        return None
    is_stuck = answer.trouble and answer.running != slots.active.bundle and slots.stage != Stage.STAGE_ARMED
    if is_stuck and slots.active.bundle:  # what should run can't be opened, and something else runs on
        failed = Refusal(slots.active.bundle, slots.active.counter, answer.trouble, may_come_back=True)
        return fallen_back(slots, failed)
    if slots.stage == Stage.STAGE_ARMED and staged is not None and answer.running == staged.bundle:
        return replace(
            slots, active=staged, previous=slots.active, staged=None, stage=Stage.STAGE_PROBATION, why="", tries=0
        )
    if slots.stage == Stage.STAGE_PROBATION and answer.running == slots.active.bundle:
        lived = told(answer, slots.active.bundle, is_shadow=False, account=slots.account_bytes)
        if lived.seconds >= limits.probation_s:
            return replace(slots, stage=Stage.STAGE_CONFIRMED, why=f"healthy for {lived.seconds:.0f} s")
    return None


def heed_stop(
    slots: Slots, number: int, stopped: Iterable[str], *, is_signed: bool, unknown: Collection[str] = ()
) -> Slots | None:
    """What follows from a stop notice.

    Args:
        number: of the notice; nothing follows from one above MOST_STOP_NUMBER.
        is_signed: the director says so, in an answer that is proven fresh: what it names replaces what was stopped. A
            broker's word alone only ever adds, and is void with a number below the director's.
        unknown: what was stopped since the director was asked, which its answer may not know of: it stays.
    """
    if not 0 <= number <= MOST_STOP_NUMBER or (number < slots.stop_number and not is_signed):
        return None
    told = sorted({one for one in stopped if _ID.fullmatch(one)})
    # Where there are too many, the first ones stay: a broker pushes nothing out.
    named = list(dict.fromkeys([*told, *unknown] if is_signed else [*slots.stopped, *told]))
    kept = tuple(sorted(named[:MOST_STOPPED]))
    # A broker's number is not kept: a made-up one would void the director's. An older notice that is told again adds
    # stops until the director's next word, no more.
    noted = replace(slots, stop_number=number if is_signed else slots.stop_number, stopped=kept)
    if slots.previous is not None and slots.previous.bundle in named:
        noted = replace(noted, previous=None)
    if slots.active.bundle in named:
        return fallen_back(noted, Refusal(slots.active.bundle, slots.active.counter, "stopped by the cloud", True))
    if slots.staged is not None and slots.staged.bundle in named:
        return refused(noted, "stopped by the cloud", may_come_back=True)
    return noted if noted != slots else None


def heed_assignment(slots: Slots, assignment: Assignment) -> Slots | None:
    """What follows from an assignment that is proven; stops come before it."""
    release, staged = assignment.release, slots.staged
    if staged is not None:
        if release is None or release.bundle != staged.bundle or assignment.mode == Mode.MODE_UNSPECIFIED:
            why = f"{staged.bundle[:12]} was withdrawn by the cloud"
            return replace(slots, staged=None, stage=Stage.STAGE_IDLE, why=why, tries=0)
        held = Held(release.bundle, release.counter, assignment.rollout)
        if release.counter < slots.highest_counter:
            return refused(slots, _below(release, slots), may_come_back=True)
        if slots.stage == Stage.STAGE_ARMED and assignment.mode != Mode.MODE_ACTIVATE:
            return replace(slots, staged=held, stage=Stage.STAGE_SHADOWING, why="back to the shadow")
        return replace(slots, staged=held) if held != staged else None
    if release is None or assignment.mode == Mode.MODE_UNSPECIFIED or slots.stage not in AT_REST:
        return None
    if release.bundle == slots.active.bundle:
        if release.counter <= max(slots.active.counter, slots.highest_counter) or assignment.mode != Mode.MODE_ACTIVATE:
            return None
        held = Held(release.bundle, release.counter, assignment.rollout)
        return replace(slots, active=held, highest_counter=release.counter)
    why = why_not(slots, release)
    if why:
        if slots.stage == Stage.STAGE_REFUSED and slots.why == why:
            return None
        for one in slots.refused:
            if one.bundle == release.bundle:
                slots = slots.refusing(one)  # the youngest: it is the one that `why` speaks of
        return replace(slots, stage=Stage.STAGE_REFUSED, why=why)
    return replace(
        slots,
        staged=Held(release.bundle, release.counter, assignment.rollout),
        refused=tuple(one for one in slots.refused if one.bundle != release.bundle),
        stage=Stage.STAGE_FETCHING, why="", tries=0,
    )  # fmt: skip


def why_not(slots: Slots, release: Release) -> str:
    """Why a release is not taken; "" where it is."""
    if release.bundle in slots.stopped:
        return f"release {release.counter} is stopped by the cloud"
    if release.counter < slots.highest_counter:
        return _below(release, slots)
    for one in slots.refused:
        if one.bundle == release.bundle and not (one.may_come_back and release.counter > one.counter):
            return f"release {release.counter} was refused here: {one.why}"[:300]
    return why_malformed(release)


def why_malformed(release: Release) -> str:
    """What is wrong with a release's names; "" where nothing is."""
    manifest = release.files[0] if release.files else None
    if not _ID.fullmatch(release.bundle) or manifest is None or manifest.name != "manifest.json":
        return f"release {release.counter}: expected a bundle with its manifest first, got {release.bundle[:20]!r}"
    if manifest.sha256.hex() != release.bundle:
        return f"release {release.counter}: expected the manifest's SHA-256 as id, got {release.bundle[:12]}..."
    names = [file.name for file in release.files]
    plain = all(name and "/" not in name and not name.startswith(".") and "\0" not in name for name in names)
    if not plain or len(set(names)) != len(names):
        return f"release {release.counter}: expected plain file names, each once"
    return ""


def operators_back(slots: Slots, leave: str) -> Slots | None:
    """An operator on the vehicle wants the previous bundle back, now.

    Args:
        leave: the bundle that is to be left.

    Returns:
        None where it is left already, or the reference bundle runs alone.
    """
    if slots.active.bundle != leave:
        return None
    if slots.active.bundle:
        return fallen_back(
            slots, Refusal(slots.active.bundle, slots.active.counter, "put back by an operator", may_come_back=True)
        )
    return refused(slots, "dropped by an operator", may_come_back=True) if slots.staged is not None else None


def pardoned(slots: Slots, bundle: str) -> Slots | None:
    """An operator on the vehicle says that a refusal was no fault of the bundle's; it may be taken again.

    Returns:
        None where it is not refused, or a stop of it stands.
    """
    others = tuple(one for one in slots.refused if one.bundle != bundle)
    if others == slots.refused or bundle in slots.stopped:
        return None
    if slots.stage == Stage.STAGE_REFUSED and slots.refused[-1].bundle == bundle:  # which `why` speaks of
        return replace(slots, refused=others, stage=Stage.STAGE_IDLE, why=f"{bundle[:12]} was pardoned by an operator")
    return replace(slots, refused=others)


def is_shadowed(slots: Slots, answer: Answer | None, limits: Limits) -> bool:
    """Whether the staged bundle ran in the shadow long enough."""
    if slots.staged is None or answer is None:
        return False
    seen = told(answer, slots.staged.bundle, is_shadow=True, account=slots.account_bytes)
    return seen.seconds >= limits.shadow_s and seen.frames >= limits.shadow_frames


def armed(slots: Slots) -> Slots:
    """The staged bundle is told to take over; from now on no older release is taken."""
    assert slots.staged is not None
    return replace(
        slots, stage=Stage.STAGE_ARMED, highest_counter=max(slots.highest_counter, slots.staged.counter), why=""
    )


def refused(slots: Slots, why: str, *, may_come_back: bool = False) -> Slots:
    """Without the staged bundle, which is not taken again."""
    assert slots.staged is not None
    refusal = Refusal(slots.staged.bundle, slots.staged.counter, why, may_come_back)
    return replace(
        slots.refusing(refusal), staged=None, stage=Stage.STAGE_REFUSED, why=f"{slots.staged.bundle[:12]}: {why}"[:300],
        tries=0,
    )  # fmt: skip


def fallen_back(slots: Slots, failed: Refusal, running: str | None = None) -> Slots:
    """With the previous bundle active again, or the reference where that is what runs or the previous one is out.

    Args:
        running: what the loop runs by its own choice; None where it was not asked.
    """
    back = slots.previous
    is_out = back is None or back.bundle == failed.bundle or any(one.bundle == back.bundle for one in slots.refused)
    if is_out or running == "" or back is None or back.bundle in slots.stopped:
        back = Held()
    return replace(
        slots.refusing(failed), active=back, previous=None, staged=None, stage=Stage.STAGE_REFUSED,
        why=f"{failed.bundle[:12]}: {failed.why}"[:300], tries=0,
    )  # fmt: skip


def told(answer: Answer, bundle: str, *, is_shadow: bool, account: bytes) -> Count:
    """How a bundle fared over all, by the loop's evidence; nothing where it says none."""
    for evidence in parsed(messages(answer.evidence)):
        if (evidence.bundle, evidence.is_shadow, evidence.account) == (bundle, is_shadow, account):
            return evidence.of(ALL)
    return Count()


def _failure_in_shadow(slots: Slots, answer: Answer, limits: Limits) -> str:
    assert slots.staged is not None
    seen = told(answer, slots.staged.bundle, is_shadow=True, account=slots.account_bytes)
    for metric in _OF_ITS_OWN:
        if seen.counts.get(metric):
            return f"in the shadow: {metric} {seen.counts[metric]} times in {seen.frames} frames"
    late = seen.counts.get("late", 0)
    if seen.frames >= limits.shadow_frames and late > limits.shadow_late * seen.frames:
        return f"in the shadow: late {late} times in {seen.frames} frames"
    return ""


def _below(release: Release, slots: Slots) -> str:
    return f"release {release.counter} is below release {slots.highest_counter}, which was accepted before"
