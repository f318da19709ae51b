"""Which bundle the loop's process runs when it starts: a pure rule over slots, its own last answer, and what is whole.

The order is active, previous, reference. The active one is passed over where it is not whole, was refused or put back,
or where a process already began with it, or with the one that was about to take over, and did not live:

    ARMED, PROBATION    the second death in a row within one epoch (the first may have been a power cut)
    else                the fifth, and only where there is a previous bundle

What `choose` says is made durable by `answered` *before* the bundle is loaded, since loading may be what kills. The
loop answers with 0 starts once it lived long enough, and when it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edge.updates.slots import Answer, PutBack, Slots
from roadfuse.v1.updates_pb2 import Stage

REFERENCE: Final = ""
NOT_WHOLE: Final = "is not whole or does not load"
# Starts without a life that are forgiven; a power cut and an impatient driver give some.
_MOST_STARTS: Final[dict[int, int]] = {Stage.STAGE_ARMED: 1, Stage.STAGE_PROBATION: 1}
_MOST_STARTS_OF_CONFIRMED: Final = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run.

    Attributes:
        bundle: its id; "" is the reference bundle.
        why: it is not what the slots say; "" where it is.
        put_back: what is to be told to the agent: the active one was passed over, or the armed one is not to be tried.
        starts: without a life, this one included.
    """

    bundle: str
    why: str = ""
    put_back: PutBack | None = None
    starts: int = 1


def choose(slots: Slots | None, answer: Answer | None, is_whole: Callable[[str], bool]) -> Choice:
    """What a starting process runs; never a bundle that is refused, never one that is not whole.

    Args:
        slots: None where the agent never wrote any, or they are lost.
        answer: of the processes before this one; None likewise.
        is_whole: whether a bundle's files are what its id says, and nothing else forbids it, such as that it did not
            load a moment ago; not asked about the reference bundle.
    """
    if slots is None:
        return Choice(REFERENCE, "no slots can be read")
    here = answer if answer is not None and answer.epoch == slots.epoch else Answer(slots.epoch)
    starts = here.starts + 1
    armed = slots.staged.bundle if slots.stage == Stage.STAGE_ARMED and slots.staged is not None else None
    back = _put_back(slots, answer, armed)
    is_dying = starts > _MOST_STARTS.get(slots.stage, _MOST_STARTS_OF_CONFIRMED)
    if back is None and is_dying and armed is not None:
        back, starts = PutBack(armed, f"did not survive being armed, {starts} times", 0), 1
    active = slots.active.bundle
    trouble = ""
    if back is not None and back.bundle == active:
        trouble = back.why
    elif any(one.bundle == active for one in slots.refused):
        trouble = "is refused"
    elif active != REFERENCE and not is_whole(active):
        trouble = NOT_WHOLE
    elif is_dying and armed is None and active != REFERENCE and slots.previous is not None:
        trouble = f"did not survive its start, {starts} times"
    if not trouble:
        return Choice(active, put_back=back, starts=starts)
    why = f"{active[:12] or 'the reference bundle'} {trouble}"
    if active == REFERENCE:  # nothing is safer
        return Choice(REFERENCE, why, starts=starts)
    if back is None or back.bundle != active:
        back = PutBack(active, trouble, 0)
    previous = slots.previous.bundle if slots.previous is not None else REFERENCE
    is_usable = previous != active and not any(one.bundle == previous for one in slots.refused)
    if previous != REFERENCE and not (is_usable and is_whole(previous)):
        return Choice(REFERENCE, f"{why}; the previous one can't be used either", back)
    return Choice(previous, why, back)


def answered(choice: Choice, slots: Slots | None, answer: Answer | None, at_ns: int) -> Answer:
    """What the starting process writes, durably, before it loads what it chose; evidence goes on."""
    return replace(
        answer or Answer(), epoch=slots.epoch if slots is not None else 0, running=choice.bundle, shadow=None,
        at_ns=at_ns, put_back=choice.put_back, trouble=choice.why, starts=choice.starts,
    )  # fmt: skip


def _put_back(slots: Slots, answer: Answer | None, armed: str | None) -> PutBack | None:
    """What was put back and is still where it was: the agent has not heard of it, whatever the epoch."""
    back = answer.put_back if answer is not None else None
    if back is None or back.bundle == REFERENCE:
        return None
    return back if back.bundle in (slots.active.bundle, armed) else None
